import assert from 'node:assert/strict';
import { test } from 'node:test';
import { consoleTail, lastWords, withConsole } from './console-tail.ts';

const machineOf = (...lines: readonly string[]) => ({
  consoleTail: async (bytes: number) => Buffer.from(lines.join('\r\n')).subarray(-bytes),
});
const registers = Array.from({ length: 20 }, (_, at) => `[ 16.77] R${at}: 0000000000000000`);

test('the console tail has the last lines, preceded by the reason of a kernel failure', async () => {
  const panicked = machineOf('booting', '[ 16.7] Kernel panic - not syncing: sysrq triggered crash', ...registers);
  const words = (await lastWords(panicked)).map(String);
  assert.equal(words.length, 8);
  assert.deepEqual(
    [words[0], words[7]],
    ['[ 16.7] Kernel panic - not syncing: sysrq triggered crash', registers.at(-1)],
  );
  assert.match(
    await withConsole('the guest reset itself', panicked),
    /^the guest reset itself; .*: \[ 16\.7\] Kernel panic/,
  );
});

test('a reason among the last lines appears once, and without a reason only the last lines appear', async () => {
  const short = machineOf('booting', 'Kernel panic - not syncing: x', '', 'end');
  assert.deepEqual((await lastWords(short)).map(String), ['booting', 'Kernel panic - not syncing: x', 'end']);
  assert.deepEqual((await lastWords(machineOf(...registers))).map(String), registers.slice(-8));
  assert.deepEqual(await lastWords(machineOf()), []);
  assert.equal(await withConsole('killed', machineOf()), 'killed');
  assert.deepEqual((await consoleTail(short, { lines: 1, bytes: 100 })).map(String), ['end']);
});
