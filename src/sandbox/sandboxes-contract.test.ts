import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLog } from '#host/log/log.ts';
import { containerSpec, sandboxSpec } from './testing/examples.ts';
import { createFakeParts } from './testing/fake-parts.ts';
import { describeExecs } from './testing/exec.conformance.ts';
import { describeSandboxes, type SandboxesHarness } from './testing/sandbox.conformance.ts';
import { defaultLimits } from './limits.ts';
import { openSandboxes } from './sandboxes.ts';

const limits = { ...defaultLimits, drainTimeoutMs: 200 };

async function openHarness(): Promise<SandboxesHarness> {
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
}

describeSandboxes('real', openHarness);

describeExecs('real', async () => {
  const harness = await openHarness();
  const signal = new AbortController().signal;
  const sandbox = await harness.sandboxes.run(sandboxSpec, signal);
  const container = await sandbox.createContainer(containerSpec, signal);
  await container.start(signal);
  return {
    container,
    async [Symbol.asyncDispose]() {
      await sandbox.remove();
      await harness[Symbol.asyncDispose]();
    },
  };
});
