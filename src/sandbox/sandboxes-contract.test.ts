import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLog } from '#host/log.ts';
import { containerSpec, sandboxSpec } from './testing/examples.ts';
import { createFakeParts } from './testing/fake-parts.ts';
import { describeSandboxes } from './testing/sandbox.conformance.ts';
import { defaultLimits } from './limits.ts';
import { openSandboxes } from './sandboxes.ts';

const limits = { ...defaultLimits, killTimeoutMs: 200, lastWordsMs: 50, drainTimeoutMs: 200 };

describeSandboxes('real', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-contract-'));
  const parts = createFakeParts(directory);
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog, limits }, new AbortController().signal);
  return {
    sandboxes,
    sandboxSpec,
    containerSpec,
    exit: async ({ status: { id } }, exitCode) =>
      parts.guest.tell({ kind: 'exited', containerId: id, exitCode, oomKilled: false, finishedAtMs: Date.now() }),
    crash: async () => parts.killMachine('QEMU was killed by SIGKILL'),
    async [Symbol.asyncDispose]() {
      await sandboxes[Symbol.asyncDispose]();
      assert.deepEqual([...parts.alive], []);
      await rm(directory, { recursive: true });
    },
  };
});
