import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as v from 'valibot';
import { podDescriptionSchema } from '#api/description.ts';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { createPodTable } from '#pod/pod-table.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { createFakeParts } from '#sandbox/testing/fake-parts.ts';
import { openSandboxes } from '#sandbox/sandboxes.ts';
import { foreignPods, foreignSummary } from './foreign-pods.ts';
import { describePod } from './pod-description.ts';

const soon = () => AbortSignal.timeout(60_000);

async function open() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-describe-'));
  const parts = createFakeParts(directory);
  const clock = { passedMs: 0 }; // moved by tests alone, so that a busy host makes no step slow
  const surroundings = {
    nowMs: () => Date.now(),
    monotonicNs: () => BigInt(clock.passedMs) * 1_000_000n,
    randomBytes: (count: number) => crypto.getRandomValues(new Uint8Array(count)),
    availableBytes: () => Promise.resolve(Number.MAX_SAFE_INTEGER),
    idleMs: () => Promise.resolve(0),
    hasDescriptors: () => true,
  };
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog, surroundings }, soon());
  const find = () => {
    throw new PodvmError('notFound', 'Cannot find the pod');
  };
  const describe = (name: string, namespace?: string) =>
    describePod({ running: createPodTable(), find, sandboxes }, namespace, name, soon());
  return {
    clock,
    parts,
    sandboxes,
    describe,
    async [Symbol.asyncDispose]() {
      await Promise.all(sandboxes.list().map((sandbox) => sandbox.remove()));
      await sandboxes[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
}

test('a pod of a kubelet is described with its containers, limits, console and steps, with escaped text', async () => {
  await using node = await open();
  const resources = { memoryLimitBytes: 64 << 20, cpuLimitMillis: 500 };
  const sandbox = await node.sandboxes.run({ ...sandboxSpec, isKept: true, resources }, soon());
  const container = await sandbox.createContainer({ ...containerSpec, resources }, soon());
  await container.start(soon());
  await writeFile(sandbox.consolePath, 'booting\r\n\u001b]0;owned\u0007Kernel panic\n');
  const described = await node.describe(sandboxSpec.name);
  v.parse(podDescriptionSchema, described);
  assert.deepEqual([described.madeBy, described.phase], ['kubelet', 'ready']);
  const listed = foreignPods(node.sandboxes).map((pod) => foreignSummary(pod));
  assert.deepEqual([listed[0]?.owner, listed[0]?.phase, listed[0]?.ready], ['kubelet', 'Running', '1/1']);
  assert.deepEqual(described.console, ['booting', '\\u001b]0;owned\\u0007Kernel panic']);
  const [main] = described.containers;
  assert.deepEqual([main?.name, main?.state, main?.limits], ['main', 'running', resources]);
  assert.ok(described.machine?.timeline.some(({ name }) => name === 'total'));
  assert.equal((await node.describe(sandboxSpec.name, sandboxSpec.namespace)).machine?.id, sandbox.id);
  await assert.rejects(node.describe(sandboxSpec.name, 'other'), { kind: 'notFound' });
});

test('a guest that does not answer is described without figures, with the reason', async () => {
  await using node = await open();
  await node.sandboxes.run(sandboxSpec, soon());
  node.parts.before = async (step, signal) => {
    if (step !== 'call stats') return;
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
  };
  const { machine } = await node.describe(sandboxSpec.name);
  assert.equal(machine?.use, undefined);
  assert.notEqual(machine?.unmeasured, undefined);
});

test('a failed machine is described with the last lines of its guest', async () => {
  await using node = await open();
  const sandbox = await node.sandboxes.run({ ...sandboxSpec, isKept: true }, soon());
  await writeFile(sandbox.consolePath, 'Kernel panic - not syncing: Attempted to kill init!\n');
  node.parts.killMachine('the guest panicked');
  await sandbox.ended;
  const { phase, machine } = await node.describe(sandboxSpec.name);
  assert.equal(phase, 'failed');
  assert.match(machine?.failure ?? '', /the guest panicked; the guest's last lines: Kernel panic - not syncing/);
});

test('a step is slow compared with the median of earlier starts', async () => {
  await using node = await open();
  for (let at = 0; at < 4; at += 1) await node.sandboxes.run({ ...sandboxSpec, name: `quick-${at}` }, soon());
  node.parts.before = async (step) => {
    if (step === 'network.prepare') node.clock.passedMs += 400;
  };
  await node.sandboxes.run({ ...sandboxSpec, name: 'slow' }, soon());
  const slowOf = async (name: string) =>
    (await node.describe(name)).machine?.timeline.filter(({ isSlow }) => isSlow).map((step) => step.name) ?? [];
  assert.ok((await slowOf('slow')).includes('total'));
  for (let at = 0; at < 4; at += 1) assert.deepEqual(await slowOf(`quick-${at}`), []);
});
