import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { Clock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { poll } from '#host/wait.ts';
import { createFakeParts } from '#sandbox/testing/fake-parts.ts';
import { sandboxSpec } from '#sandbox/testing/examples.ts';
import { openSandboxes } from '#sandbox/sandboxes.ts';
import { PodSampler, type SamplerTimes, samplerTimes } from './pod-sampler.ts';
import { podFigures } from './testing/figures.ts';

const soon = () => AbortSignal.timeout(60_000);

/** Pods with fake guests, and a clock that the test moves. */
async function open(names: readonly string[], times: Partial<SamplerTimes> = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-metrics-'));
  const parts = createFakeParts(directory);
  const sandboxes = await openSandboxes({ directory, parts, log: silentLog }, soon());
  for (const name of names) {
    await sandboxes.run({ ...sandboxSpec, name }, soon());
    parts.guest.answers.set('metrics', () => podFigures);
  }
  let nowMs = 1000;
  const planned = new Set<() => void>();
  const clock: Clock = {
    now: () => 5_000_000 + nowMs,
    monotonicMs: () => nowMs,
    after(_ms, action) {
      planned.add(action);
      return () => planned.delete(action);
    },
  };
  return {
    parts,
    sandboxes,
    sampler: new PodSampler(sandboxes, clock, silentLog, () => undefined, {
      ...samplerTimes,
      firstMs: 60_000,
      answerMs: 60_000,
      ...times,
    }),
    /** Passes time and runs the round that was planned for then. */
    async pass(ms: number) {
      nowMs += ms;
      const due = [...planned];
      planned.clear();
      for (const action of due) action();
      for (let turn = 0; turn < 50; turn += 1) await setImmediate();
    },
    planned,
    async [Symbol.asyncDispose]() {
      await sandboxes[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
}

test('a read returns the latest answers, and a hanging guest delays neither reads nor other guests', async () => {
  await using node = await open(['good', 'hung'], { firstMs: 1 });
  let asked = 0;
  node.parts.before = async (step, signal) => {
    signal.throwIfAborted();
    const isHung = step === 'call metrics' && ++asked % 2 === 0;
    if (isHung)
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
  };
  const namesOf = async () =>
    [...(await node.sampler.read())].map(
      ([{ spec }, { guest, unanswered }]) => `${spec.name} ${guest?.metrics.pod.pids} ${unanswered}`,
    );
  const answered = async () => {
    const names = await namesOf(); // would never come if it waited for the guest that hangs
    return names[0] === 'good 3 0' ? names : undefined;
  };
  assert.deepEqual(await poll(answered, { everyMs: 5, signal: soon() }), ['good 3 0', 'hung undefined 0']);
  node.sampler[Symbol.dispose]();
});

test('a guest that stops answering keeps its last values for a while, and then has none', async () => {
  await using node = await open(['web']);
  const guestOf = async () => [...(await node.sampler.read()).values()][0]?.guest;
  assert.equal((await guestOf())?.atMs, 1000);
  node.parts.before = () => Promise.reject(new Error('the guest hangs'));
  await node.pass(15_000);
  assert.equal((await guestOf())?.atMs, 1000, 'the last answer');
  await node.pass(samplerTimes.oldestMs);
  assert.equal(await guestOf(), undefined);
  node.sampler[Symbol.dispose]();
});

test('pods are measured only while there are readers, and removed ones are dropped', async () => {
  await using node = await open(['web']);
  assert.equal(node.planned.size, 0, 'nothing is asked unless something reads');
  assert.equal((await node.sampler.read()).size, 1);
  assert.equal(node.planned.size, 1);
  await node.sandboxes.get('default', 'web')?.remove();
  assert.equal((await node.sampler.read()).size, 0);
  await node.pass(15_000);
  assert.equal(node.planned.size, 1);
  await node.pass(samplerTimes.idleMs + 1);
  assert.equal(node.planned.size, 0, 'no next round');
  node.sampler[Symbol.dispose]();
});

test('a pod that is left alone is listed, and does not count as one that does not answer', async () => {
  await using node = await open(['web']);
  const sandbox = node.sandboxes.get('default', 'web') ?? assert.fail();
  const { status } = sandbox;
  Object.defineProperty(sandbox, 'status', { get: () => ({ ...status, leftAlone: 'of another podvm' }) });
  node.parts.before = () => Promise.reject(new Error('it cannot be asked'));
  await node.sampler.read();
  await node.pass(15_000);
  const samples = [...(await node.sampler.read()).values()];
  assert.deepEqual(samples, [{ host: undefined, guest: undefined, unanswered: 0 }]);
  node.sampler[Symbol.dispose]();
});
