import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { identify } from '#host/process/process-identity.ts';
import { startChild } from '#host/process/start-child.ts';
import { processesIn } from './namespaces.ts';

test('processesIn() finds those of the holder’s network, and none where the holder’s pid is another process’s', async () => {
  const holder = ['--user', '--map-root-user', '--net', '--', 'sh', '-c', 'echo ready; exec sleep infinity'];
  const child = await startChild('unshare', holder, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    assert.ok(child.stdout !== null);
    await once(child.stdout, 'data');
    const [its, own] = [await identify(child.pid ?? 0), await identify(process.pid)];
    assert.ok(its !== undefined && own !== undefined);
    assert.deepEqual(await processesIn(its), [its]);
    assert.deepEqual(await processesIn({ ...its, startTicks: '1' }), []);
    assert.deepEqual(await processesIn({ ...own, startTicks: '1' }), [], 'all processes of the host');
  } finally {
    child.kill('SIGKILL');
  }
});
