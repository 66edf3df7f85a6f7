import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import type { Accelerator } from '#vm/driver.ts';
import { discardAtRest, type RestTimes } from './discard-at-rest.ts';

const times: RestTimes = { lookMs: 10, restMs: 30, maxRestMs: 100, maxUtilization: 0.02, leastBytes: 1000 };

/** A machine whose time passes by `pass`, in which it uses that part of a core. */
function resting({ accelerator = 'tcg', isGone = false }: { accelerator?: Accelerator; isGone?: boolean } = {}) {
  mock.timers.enable({ apis: ['setInterval'] });
  let [nowMs, cpuMs] = [0, 0];
  const its = { translatedBytes: 5000, measurements: 0, failure: undefined as Error | undefined };
  const discardedAt: number[] = [];
  const said: string[] = [];
  const machine = {
    accelerator,
    record: { driver: 'fake', id: 'm', directory: '/', pid: 1, startTicks: '1', uid: 1, memoryMiB: 1 },
    discardTranslations: async () => {
      if (its.failure !== undefined) throw its.failure;
      discardedAt.push(nowMs);
    },
  };
  const surroundings = {
    monotonicNs: () => BigInt(nowMs) * 1_000_000n,
    log: { debug: (event: string) => void said.push(event) },
  };
  const measured = {
    cpuSeconds: () => (isGone ? undefined : cpuMs / 1000),
    translatedBytes: async () => {
      its.measurements += 1;
      return its.translatedBytes;
    },
  };
  const discarding = discardAtRest({ machine, surroundings }, measured, times);
  const pass = async (ms: number, utilization = 0.005) => {
    for (let passed = 0; passed < ms; passed += times.lookMs) {
      nowMs += times.lookMs;
      cpuMs += times.lookMs * utilization;
      mock.timers.tick(times.lookMs);
      await new Promise(setImmediate);
    }
  };
  const dispose = () => {
    discarding[Symbol.dispose]();
    mock.timers.reset();
  };
  return { its, discardedAt, said, discarding, pass, [Symbol.dispose]: dispose };
}

test('discardAtRest() discards when the machine has rested', async () => {
  using it = resting();
  await it.pass(20);
  assert.deepEqual(it.discardedAt, []);
  await it.pass(10);
  assert.deepEqual(it.discardedAt, [30]);
});

test('discardAtRest() begins to count again when the machine works', async () => {
  using it = resting();
  await it.pass(20);
  await it.pass(10, 0.03);
  await it.pass(20);
  assert.deepEqual(it.discardedAt, []);
  await it.pass(10);
  assert.deepEqual(it.discardedAt, [60]);
});

test('discardAtRest() waits twice as long before each further time, up to the maximum', async () => {
  using it = resting();
  await it.pass(500);
  assert.deepEqual(it.discardedAt, [30, 90, 190, 290, 390, 490]);
});

test('discardAtRest() leaves a machine alone that has translated little, until it has more', async () => {
  using it = resting();
  it.its.translatedBytes = 999;
  await it.pass(100);
  assert.deepEqual(it.discardedAt, []);
  assert.equal(it.its.measurements, 3); // once for each rest, not at each look
  it.its.translatedBytes = 1000;
  await it.pass(20);
  assert.deepEqual(it.discardedAt, [120]);
});

test('discardAtRest() tries again after an error, when the machine has rested again', async () => {
  using it = resting();
  it.its.failure = new Error('no descriptors');
  await it.pass(30);
  it.its.failure = undefined;
  await it.pass(30);
  assert.deepEqual([it.discardedAt, it.said], [[60], ['translations not discarded']]);
});

test('discardAtRest() does nothing with KVM, nor for a machine that is gone or that it is disposed for', async () => {
  using kvm = resting({ accelerator: 'kvm' });
  await kvm.pass(100);
  assert.deepEqual(kvm.discardedAt, []);
  mock.timers.reset();
  using gone = resting({ isGone: true });
  await gone.pass(100);
  assert.deepEqual(gone.discardedAt, []);
  mock.timers.reset();
  using disposed = resting();
  disposed.discarding[Symbol.dispose]();
  await disposed.pass(100);
  assert.deepEqual(disposed.discardedAt, []);
});
