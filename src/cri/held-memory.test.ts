import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heldAfter } from '../../test/held-memory.ts';
import { openFakeNode } from './testing/fake-node.ts';

/** Maximum growth of the heap by 2,500 calls, in bytes: less than a quarter of a KiB for each. */
const maxGrowthBytes = 600_000;

test('thousands of status and list calls, 50 at a time, leave nothing in memory', { timeout: 120_000 }, async (t) => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId, containerId } = await node.running();
  const round = async () => {
    await Promise.all([
      runtime.podSandboxStatus({ podSandboxId, verbose: true }),
      runtime.containerStatus({ containerId, verbose: true }),
      runtime.listPodSandbox(),
      runtime.listContainers(),
      runtime.status(),
    ]);
  };
  const grownBytes = await heldAfter(async () => {
    for (let made = 0; made < 500; made += 50) await Promise.all(Array.from({ length: 10 }, round));
  });
  t.diagnostic(`${grownBytes} bytes more`);
  assert.ok(grownBytes < maxGrowthBytes, `${grownBytes} bytes more are held`);
});
