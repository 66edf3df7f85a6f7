import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { defaultLimits } from '../limits.ts';
import type { Sandbox } from '../sandbox.ts';
import { openSandboxes } from '../sandboxes.ts';
import { containerSpec } from './examples.ts';
import { createFakeParts, type FakeParts } from './fake-parts.ts';

export const never = new AbortController().signal;
const limits = {
  ...defaultLimits,
  userIds: { first: 1000, count: 1 },
  drainTimeoutMs: 200,
};
/** Whether an error is of this kind. */
export const is = (kind: string) => (error: unknown) => error instanceof PodvmError && error.kind === kind;

/** Sandboxes on fakes. Closing them checks that nothing is left. */
export async function openFakeSandboxes(vary: Partial<typeof limits> = {}, around = (parts: FakeParts) => parts) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-sandboxes-'));
  const parts = around(createFakeParts(directory));
  const all = { ...limits, ...vary };
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog, limits: all }, never);
  return {
    directory,
    parts,
    sandboxes,
    async [Symbol.asyncDispose]() {
      await sandboxes[Symbol.asyncDispose]();
      await assertNothingLeft(directory, parts);
      await rm(directory, { recursive: true });
    },
  };
}

export async function assertNothingLeft(directory: string, parts: FakeParts): Promise<void> {
  assert.deepEqual([...parts.alive], []);
  assert.deepEqual(await readdir(join(directory, 'sandboxes')), []);
}

/** Starts a container of the sandbox, with its output and a way to end it. */
export const startedContainer = async (sandbox: Sandbox, parts: FakeParts) => {
  const container = await sandbox.createContainer(containerSpec, never);
  await container.start(never);
  const exit = (exitCode: number, more: object = {}) =>
    parts.guest.tell({
      kind: 'exited',
      containerId: container.status.id,
      exitCode,
      oomKilled: false,
      finishedAtMs: 2000,
      ...more,
    });
  const create = parts.guest.calls.findLast(({ method }) => method === 'createContainer');
  assert.ok(create);
  const { stdout, stderr } = create.params['stdio'] as { stdout: number; stderr: number };
  const output = { stdout: parts.guest.stream(stdout), stderr: parts.guest.stream(stderr) };
  return { container, exit, output };
};
