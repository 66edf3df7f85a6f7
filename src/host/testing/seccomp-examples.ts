import assert from 'node:assert/strict';

/** Architecture number, for tests of system call lists. */
export const x86_64 = 0xc000_003e;
export const answers = { allow: 0x7fff_0000, noSuchCall: 0x0005_0026, killed: 0x8000_0000 } as const;

/** Returns the kernel's answer. Supports only the BPF instructions that the lists use; others throw. */
export function answerOf(
  program: Buffer,
  number: number,
  given: readonly number[] = [],
  architecture = x86_64,
): number {
  const data = new Map([
    [0, number],
    [4, architecture],
    ...[0, 1, 2].map((at) => [16 + 8 * at, given[at] ?? 0] as const),
  ]);
  let accumulator = 0;
  for (let at = 0; at < program.length; at += 8) {
    const [code, k] = [program.readUInt16LE(at), program.readUInt32LE(at + 4)];
    const jump = (isTrue: boolean) => 8 * program.readUInt8(at + (isTrue ? 2 : 3));
    if (code === 0x06) return k;
    if (code === 0x20) accumulator = data.get(k) ?? assert.fail(`loads from ${k}`);
    else if (code === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (code === 0x05) at += 8 * k;
    else if (code === 0x15) at += jump(accumulator === k);
    else if (code === 0x25) at += jump(accumulator > k);
    else if (code === 0x35) at += jump(accumulator >= k);
    else if (code === 0x45) at += jump((accumulator & k) !== 0);
    else assert.fail(`instruction ${code}`);
  }
  return assert.fail('the program ends without an answer');
}
