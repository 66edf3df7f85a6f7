import assert from 'node:assert/strict';
import { test } from 'node:test';
import { usualDevicesProgram } from './device-program.ts';

const types = { block: 1, character: 2 } as const;
const accesses = { mknod: 1, read: 2, write: 4 } as const;

/** Runs the program as the kernel does. Supports only the instructions that it uses; others throw. */
function answerTo(type: number, access: number, major: number, minor: number): number {
  const program = Buffer.from(usualDevicesProgram());
  const context = [(access << 16) | type, major, minor];
  const registers = Array.from({ length: 6 }, () => Number.NaN);
  for (let at = 0; at < program.length; at += 8) {
    const [code, to, value] = [program[at], program.readUInt8(at + 1) & 0xf, program.readInt32LE(at + 4)];
    const offset = program.readInt16LE(at + 2);
    const before = registers[to] ?? assert.fail(`register ${to}`);
    if (code === 0x95) return registers[0] ?? assert.fail('no answer');
    if (code === 0x61) registers[to] = context[offset / 4] ?? assert.fail(`loads from ${offset}`);
    else if (code === 0x54) registers[to] = before & value;
    else if (code === 0x74) registers[to] = before >>> value;
    else if (code === 0xb7) registers[to] = value;
    else if (code === 0x15) at += before === value ? 8 * offset : 0;
    else if (code === 0x55) at += before === value ? 0 : 8 * offset;
    else assert.fail(`instruction ${code}`);
  }
  return assert.fail('the program ends without an answer');
}

test('usualDevicesProgram() allows the usual devices, and to make any node', () => {
  const usual = [
    ...[3, 5, 7, 8, 9].map((minor) => [1, minor] as const),
    ...[0, 1, 2].map((minor) => [5, minor] as const),
    ...[[10, 200] as const, [136, 0] as const, [136, 77] as const],
  ];
  for (const [major, minor] of usual)
    for (const access of [1, 2, 4, 6, 7])
      assert.equal(answerTo(types.character, access, major, minor), 1, `${major}:${minor}`);
  for (const type of Object.values(types)) assert.equal(answerTo(type, accesses.mknod, 8, 0), 1);
});

test('usualDevicesProgram() refuses every other device, and blocks with the numbers of usual ones', () => {
  for (let major = 0; major < 512; major += 1) {
    for (const minor of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 199, 200, 201, 255]) {
      for (const access of [2, 3, 4, 5, 6, 7]) {
        assert.equal(answerTo(types.block, access, major, minor), 0);
        const isUsual =
          (major === 1 && [3, 5, 7, 8, 9].includes(minor)) ||
          (major === 5 && minor <= 2) ||
          (major === 10 && minor === 200) ||
          major === 136;
        assert.equal(answerTo(types.character, access, major, minor), isUsual ? 1 : 0, `${major}:${minor}`);
      }
    }
  }
});
