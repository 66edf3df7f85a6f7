import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '#host/log.ts';
import { heldMemory } from '../../test/held-memory.ts';
import { defaultLimits } from './limits.ts';
import { openSandboxes } from './sandboxes.ts';
import { containerSpec, sandboxSpec } from './testing/examples.ts';
import { createFakeParts } from './testing/fake-parts.ts';

/** Less than 9 KiB for each of the last 600 sandboxes; one that stayed would hold 100. */
const maxGrowthBytes = 5 * 1024 ** 2;
const never = new AbortController().signal;

test('800 sandboxes one after the other leave nothing in memory', { timeout: 120_000 }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-held-'));
  const parts = createFakeParts(directory);
  const limits = { ...defaultLimits, killTimeoutMs: 1, lastWordsMs: 1, drainTimeoutMs: 1 };
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog, limits }, never);
  let made = 0;
  const runSome = async (until: number) => {
    while (made < until) {
      made += 1;
      const sandbox = await sandboxes.run({ ...sandboxSpec, name: `pod-${made}` }, never);
      if (made % 4 === 0) await (await sandbox.createContainer(containerSpec, never)).start(never);
      await sandbox.remove();
    }
  };
  const inTurns = (until: number) => Promise.all(Array.from({ length: 8 }, () => runSome(until)));
  await inTurns(200);
  const before = heldMemory();
  const startedMs = performance.now();
  await inTurns(800);
  const grownBytes = heldMemory() - before;
  t.diagnostic(`${grownBytes} bytes more, ${Math.round(performance.now() - startedMs)} ms`);
  assert.ok(grownBytes < maxGrowthBytes, `${grownBytes} bytes more are held`);
  await sandboxes[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});
