import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { identify } from './process-identity.ts';
import { readPulse } from './process-pulse.ts';
import { poll } from '../wait.ts';

test('readPulse() distinguishes stopped, running and ended processes', async () => {
  const child = spawn('sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  const identity = (await identify(child.pid ?? 0)) ?? assert.fail('it has not started');
  const signal = AbortSignal.timeout(60_000);
  const pulse = () => readPulse(identity);
  const ran = await poll(async () => ((await pulse())?.ranMs ?? 0) > 20 || undefined, { everyMs: 10, signal });
  assert.ok(ran);
  child.kill('SIGSTOP');
  const stopped = await poll(async () => ((await pulse())?.isStopped ? await pulse() : undefined), {
    everyMs: 10,
    signal,
  });
  assert.ok(stopped?.isStopped);
  assert.deepEqual(await pulse(), stopped);
  assert.equal(await readPulse({ ...identity, startTicks: '1' }), undefined);
  child.kill('SIGKILL');
  await ended;
  assert.equal(await pulse(), undefined);
});
