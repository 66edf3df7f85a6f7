import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { createLog } from '#host/log/log.ts';
import { poll } from '#host/wait.ts';
import { keepDashboard } from './keep-dashboard.ts';

test('keepDashboard() lets the daemon start while the port is taken, and serves as soon as it is free', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-keep-'));
  const file = join(directory, 'dashboard.url');
  await writeFile(file, 'http://127.0.0.1:1/#token=of-a-killed-daemon\n');
  const lines: string[] = [];
  const waits: { readonly ms: number; readonly end: () => void }[] = [];
  const clock = {
    now: () => 0,
    monotonicMs: () => 0,
    after(ms: number, end: () => void) {
      waits.push({ ms, end });
      return () => {};
    },
  };
  let isTaken = true;
  let isEnded = false;
  const serve = async () => {
    if (isTaken) throw new PodvmError('busy', 'Cannot serve the dashboard on 127.0.0.1 port 8420');
    return { url: 'http://127.0.0.1:8420/#token=t', [Symbol.asyncDispose]: async () => void (isEnded = true) };
  };
  const log = createLog('info', (line) => lines.push(line.replace(/^\S+ /, '')));
  {
    await using _kept = await keepDashboard({ socketPath: join(directory, 'podvm.sock'), serve, clock, log });
    await assert.rejects(stat(file), { code: 'ENOENT' }, 'no address of another program');
    const tried = async (times: number) =>
      await poll(async () => (waits.length === times ? true : undefined), {
        everyMs: 5,
        signal: AbortSignal.timeout(60_000),
      });
    await tried(1);
    waits[0]?.end();
    await tried(2);
    isTaken = false;
    waits[1]?.end();
    const text = await poll(async () => await readFile(file, 'utf8').catch(() => undefined), {
      everyMs: 5,
      signal: AbortSignal.timeout(60_000),
    });
    assert.deepEqual([text, (await stat(file)).mode & 0o777], ['http://127.0.0.1:8420/#token=t\n', 0o600]);
    assert.deepEqual(
      waits.map(({ ms }) => ms),
      [10_000, 10_000],
    );
  }
  assert.ok(isEnded);
  await assert.rejects(stat(file), { code: 'ENOENT' });
  assert.deepEqual(lines, [
    'warn the dashboard is not served why="Cannot serve the dashboard on 127.0.0.1 port 8420" againSeconds=10\n',
    `info serving the dashboard address=127.0.0.1:8420 file=${file}\n`,
  ]);
  await rm(directory, { recursive: true });
});
