import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { createLog } from '#host/log/log.ts';
import { identify } from '#host/process/process-identity.ts';
import { endIfStopped, watchStopped } from './stopped-server.ts';

test('watchStopped() reports that a server is stopped or continues, and ends one that stays stopped', async () => {
  const child = spawn('sleep', ['1000']);
  const ended = once(child, 'exit');
  const server = (await identify(child.pid ?? 0)) ?? assert.fail();
  let lines = '';
  const said = new Map<RegExp, () => void>();
  const log = createLog('info', (line) => {
    lines += line;
    for (const [pattern, resolve] of said) if (pattern.test(lines)) resolve();
  });
  const says = (pattern: RegExp) => new Promise<void>((resolve) => void said.set(pattern, resolve));
  {
    using _watch = watchStopped(server, '/data', log, { lookMs: 5, endMs: 60_000 });
    const isTold = says(/warn a file server is stopped: its volume is blocked .*path=\/data/);
    child.kill('SIGSTOP');
    await isTold;
    const goesOn = says(/info a file server continues .*path=\/data/);
    child.kill('SIGCONT');
    await goesOn;
  }
  assert.equal(await endIfStopped(server, '/data', log), false);
  assert.equal(child.signalCode, null);
  using _watch = watchStopped(server, '/data', log, { lookMs: 5, endMs: 20 });
  child.kill('SIGSTOP');
  assert.deepEqual(await ended, [null, 'SIGKILL']);
});
