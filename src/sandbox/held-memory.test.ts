import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { heldAfter } from '../../test/held-memory.ts';
import { defaultLimits } from './limits.ts';
import { openSandboxes } from './sandboxes.ts';
import { containerSpec, sandboxSpec } from './testing/examples.ts';
import { createFakeParts } from './testing/fake-parts.ts';

/** Less than 1 KiB for each of 1,000 sandboxes; one that stayed would hold 100. */
const maxGrowthBytes = 1_000_000;
const never = new AbortController().signal;

test('2,000 sandboxes, one after another, leave nothing in memory', { timeout: 120_000 }, async (t) => {
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
  const grownBytes = await heldAfter(async () => {
    const until = made + 200;
    await Promise.all(Array.from({ length: 8 }, () => runSome(until)));
  });
  t.diagnostic(`${grownBytes} bytes more`);
  assert.ok(grownBytes < maxGrowthBytes, `${grownBytes} bytes more are held`);
  await sandboxes[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});
