import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heldMemory } from '../../test/held-memory.ts';
import { openFakeNode } from './testing/fake-node.ts';

/** Maximum growth of the heap from the 1,000th to the 3,500th call, in bytes: less than half a KiB for each. */
const maxGrowthBytes = 1.2 * 1024 ** 2;

test('2,500 status and list calls, 50 at a time, leave nothing in memory', { timeout: 120_000 }, async (t) => {
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
  const calls = async (count: number) => {
    for (let made = 0; made < count; made += 50) await Promise.all(Array.from({ length: 10 }, round));
  };
  await calls(1000);
  const before = heldMemory();
  const startedMs = performance.now();
  await calls(2500);
  const ms = performance.now() - startedMs;
  const grownBytes = heldMemory() - before;
  t.diagnostic(`${grownBytes} bytes more, ${Math.round((2500 * 1000) / ms)} calls a second`);
  assert.ok(grownBytes < maxGrowthBytes, `${grownBytes} bytes more are held`);
});
