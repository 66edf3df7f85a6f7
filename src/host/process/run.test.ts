import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';
import { fixesOfSystemErrors } from '../advice.ts';
import { run, signalOf } from './run.ts';

const kind = (expected: string) => (error: unknown) => error instanceof PodvmError && error.kind === expected;

test('run() returns what the program printed', async () => {
  const result = await run('sh', ['-c', 'cat; echo err >&2'], { input: 'hello' });
  assert.deepEqual(result, { code: 0, stdout: 'hello', stderr: 'err\n' });
});

test('run() names the exit code and keeps the last lines when the program fails', async () => {
  await assert.rejects(run('sh', ['-c', 'echo one >&2; echo two >&2; exit 3']), (error) => {
    assert.ok(error instanceof PodvmError);
    assert.match(error.message, /Cannot run sh: it ended with code 3: two/);
    assert.deepEqual(error.tail.map(String), ['one', 'two']);
    return true;
  });
});

test('run() says what to do about a full disk or a full table of descriptors that the program names', async () => {
  const failing = (words: string) => run('sh', ['-c', `echo "cp: cannot create 'a': ${words}" >&2; exit 1`]);
  await assert.rejects(failing('No space left on device'), { fix: fixesOfSystemErrors['ENOSPC'] });
  await assert.rejects(failing('Too many open files'), { fix: fixesOfSystemErrors['EMFILE'] });
  await assert.rejects(failing('Permission denied'), { fix: undefined });
});

test('run() reports the signal that ended the program, or returns its code to the caller', async () => {
  const message = 'Cannot run sh: it was killed by SIGTERM: last';
  await assert.rejects(run('sh', ['-c', 'echo last >&2; kill $$']), { kind: 'internal', message });
  const { code } = await run('sh', ['-c', 'kill -9 $$'], { okCodes: 'any' });
  assert.equal(signalOf(code), 'it was killed by SIGKILL');
  for (const ordinary of [0, 1, 127, 128, 255, -1]) assert.equal(signalOf(ordinary), undefined);
});

test('run() names the missing program', async () => {
  await assert.rejects(run('no-such-program', []), kind('failedPrecondition'));
});

test('run() ends the program at the deadline, on cancellation, and on too much output', async () => {
  await assert.rejects(run('sleep', ['60'], { timeoutMs: 50 }), kind('timeout'));
  await assert.rejects(run('sleep', ['60'], { signal: AbortSignal.abort() }), kind('cancelled'));
  const controller = new AbortController();
  const running = run('sleep', ['60'], { signal: controller.signal });
  controller.abort();
  await assert.rejects(running, kind('cancelled'));
  await assert.rejects(run('yes', [], { maxOutputBytes: 1000 }), kind('exhausted'));
});

test('run() also ends child processes, and does not wait for others that hold its output', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-run-'));
  const started = async (who: string): Promise<number> => Number(await readFile(join(directory, who), 'latin1'));
  const script = `sleep 60 & echo $! >child; setsid sh -c 'echo $$ >stray; exec sleep 60' & until [ -s stray ]; do :; done; echo >ready; wait`;
  const stop = new AbortController();
  const running = run('sh', ['-c', script], { cwd: directory, signal: stop.signal });
  running.catch(() => {});
  while (!existsSync(join(directory, 'ready'))) await setImmediate();
  stop.abort();
  await assert.rejects(running, kind('cancelled'));
  assert.ok(existsSync(`/proc/${await started('stray')}`), 'the process that left the group was not waited for');
  const commandOf = (pid: number) => readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => ''); // empty for a zombie
  while ((await commandOf(await started('child'))) !== '') await setImmediate();
  process.kill(await started('stray'));
  await rm(directory, { recursive: true });
});

test('run() never returns the truncated output of a cancelled program', async () => {
  const whole = 'x'.repeat(300_000);
  for (let ms = 0; ms < 12; ms += 0.5) {
    const stop = new AbortController();
    const running = run('cat', [], { input: whole, signal: stop.signal });
    setTimeout(() => stop.abort(), ms);
    const outcome = await running.catch((error: unknown) => assert.ok(kind('cancelled')(error)));
    if (outcome) assert.equal(outcome.stdout.length, whole.length);
  }
});
