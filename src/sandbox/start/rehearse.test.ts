import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { exampleWelcome } from '#link/testing/fake-agent.ts';
import { welcomeSchema } from '#wire/messages.ts';
import { defaultLimits } from '../limits.ts';
import { machineSizeOf } from '../resources.ts';
import { createFakeParts } from '../testing/fake-parts.ts';
import { sandboxSpec } from '../testing/examples.ts';
import { openSandboxes } from '../sandboxes.ts';
import { watchForRehearsal } from './rehearse.ts';

const limits = { ...defaultLimits, size: { ...defaultLimits.size, maxVcpus: 2 } };
const usual = {
  machine: { accelerator: 'tcg' },
  size: machineSizeOf('a pod', {}, limits.size),
  isExercised: false,
  others: 0,
} as const;

/** Returns the guest's calls after a start of 200 ms during which so many cores were idle. */
async function callsAfter(idleCores: number, more: Partial<Parameters<ReturnType<typeof watchForRehearsal>>[0]> = {}) {
  let nowMs = 1_000_000;
  const monotonicNs = () => BigInt(nowMs) * 1_000_000n;
  const idleMs = () => Promise.resolve(5_000_000 + idleCores * (nowMs - 1_000_000));
  const rehearse = watchForRehearsal({ monotonicNs, idleMs });
  nowMs += 200;
  const calls: string[] = [];
  const call = (method: string): Promise<never> => {
    calls.push(method);
    return Promise.reject(new PodvmError('unavailable', 'the guest has ended'));
  };
  const welcome = v.parse(welcomeSchema, exampleWelcome);
  await rehearse({ ...usual, guest: { call, welcome }, ...more }).catch(() => undefined);
  return calls;
}

test('a container is rehearsed while a core of the host is idle', async () => {
  assert.deepEqual(await callsAfter(0.3), ['rehearse']);
});

for (const [why, idleCores, more] of [
  ['on a busy host', 0.2, {}],
  ['during another start', 2, { others: 1 }],
  ['in a machine of the pool', 2, { isExercised: true }],
  ['with KVM', 2, { machine: { accelerator: 'kvm' } }],
  ['with one processor', 2, { size: { ...usual.size, nominal: { memoryMiB: 1024, vcpus: 1 } } }],
  ['in a pod that may use one processor', 2, { size: machineSizeOf('a pod', { cpuLimitMillis: 1000 }, limits.size) }],
] as const) {
  test(`no container is rehearsed ${why}`, async () => {
    assert.deepEqual(await callsAfter(idleCores, more), []);
  });
}

test('a pod without a waiting machine has its guest rehearse a container, and is ready if that fails', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-rehearse-'));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true }));
  const parts = createFakeParts(directory);
  const rehearsed = Promise.withResolvers<void>();
  parts.before = async (step) => {
    if (step !== 'call rehearse') return;
    rehearsed.resolve();
    throw new PodvmError('unavailable', 'the guest refuses');
  };
  const surroundings = {
    nowMs: () => Date.now(),
    monotonicNs: () => process.hrtime.bigint(),
    randomBytes: (count: number) => crypto.getRandomValues(new Uint8Array(count)),
    availableBytes: () => Promise.resolve(Number.MAX_SAFE_INTEGER),
    idleMs: () => Promise.resolve(performance.now()),
    hasDescriptors: () => true,
  };
  const open = openSandboxes({ directory, parts, log: silentLog, surroundings, limits }, AbortSignal.timeout(60_000));
  const sandboxes = undo.use(await open);
  const sandbox = await sandboxes.run(sandboxSpec, AbortSignal.timeout(60_000));
  await rehearsed.promise;
  assert.equal(sandbox.status.state, 'ready');
  await sandbox.remove();
});
