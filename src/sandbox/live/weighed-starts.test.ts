import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import type { Accelerator } from '#vm/driver.ts';
import { lingerMs as lingersMs, maxWeighedMs, WeighedStarts } from './weighed-starts.ts';

const { kvm: lingerMs } = lingersMs;

/** A machine whose time passes by `pass`. `set`: changes its weight. */
function weighed({
  isNew = false,
  accelerator = 'kvm',
  set = async () => {},
  onError = () => {},
}: {
  isNew?: boolean;
  accelerator?: Accelerator;
  set?: (isSet: boolean) => Promise<void>;
  onError?: (message: string) => void;
}) {
  mock.timers.enable({ apis: ['setTimeout'] });
  const changes: boolean[] = [];
  let nowMs = 0;
  const setStartWeight = async (isSet: boolean) => {
    await set(isSet);
    changes.push(isSet);
  };
  const surroundings = { monotonicNs: () => BigInt(nowMs) * 1_000_000n, log: { error: onError } };
  const starts = new WeighedStarts({ machine: { setStartWeight, accelerator }, surroundings }, isNew);
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 100) {
      nowMs += 100;
      mock.timers.tick(100);
      await new Promise(setImmediate);
    }
  };
  return { starts, changes, pass, [Symbol.dispose]: () => mock.timers.reset() };
}

/** A start that lasts until it is ended. */
function startIn(starts: WeighedStarts) {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = starts.during(() => promise);
  return async () => {
    resolve();
    await done;
  };
}

test('a machine keeps the weight of its start until its containers have started', async () => {
  using it = weighed({ isNew: true });
  await it.pass(lingerMs - 100);
  const end = startIn(it.starts);
  await it.pass(5 * lingerMs);
  await end();
  await it.pass(lingerMs - 100);
  await it.starts.during(async () => {});
  await it.pass(lingerMs - 100);
  assert.deepEqual(it.changes, []);
  await it.pass(100);
  assert.deepEqual(it.changes, [false]);
});

test('an emulated machine keeps the weight while its programs initialize themselves', async () => {
  using it = weighed({ isNew: true, accelerator: 'tcg' });
  await it.starts.during(async () => {});
  await it.pass(lingersMs.tcg - 100);
  assert.deepEqual(it.changes, []);
  await it.pass(100);
  assert.deepEqual(it.changes, [false]);
});

test('a machine of an earlier process has no weight left, and a later start has the weight, from its beginning until a moment after the last one', async () => {
  using it = weighed({});
  await it.pass(5 * lingerMs);
  assert.deepEqual(it.changes, [false]);
  const [endOne, endOther] = [startIn(it.starts), startIn(it.starts)];
  await it.pass(100);
  assert.deepEqual(it.changes, [false, true]);
  await endOne();
  await it.pass(5 * lingerMs);
  assert.deepEqual(it.changes, [false, true]);
  await endOther();
  await it.pass(lingerMs);
  assert.deepEqual(it.changes, [false, true, false]);
});

test('a start that does not end, and starts in a loop, have the weight for a bounded time', async () => {
  using it = weighed({});
  await it.pass(100);
  const end = startIn(it.starts);
  await it.pass(maxWeighedMs + 100);
  assert.deepEqual(it.changes, [false, true, false]);
  await end();

  let weighedMs = 0;
  const loopMs = 1_000_000;
  for (let passed = 0; passed < loopMs; passed += 100) {
    await it.starts.during(async () => {});
    await it.pass(100);
    if (it.changes.at(-1) === true) weighedMs += 100;
  }
  assert.ok(weighedMs > 0.05 * loopMs && weighedMs < 0.1 * loopMs, `${weighedMs} ms`);
});

test('a change that failed is tried again, until the machine is gone', async () => {
  let kind: 'internal' | 'unavailable' = 'internal';
  let tries = 0;
  using it = weighed({
    isNew: true,
    set: async () => {
      tries += 1;
      if (tries !== 3) throw new PodvmError(kind, 'no descriptors');
    },
  });
  await it.pass(10 * lingerMs);
  assert.equal(tries, 3);
  assert.deepEqual(it.changes, [false]);

  tries = 10;
  kind = 'unavailable';
  await it.starts.during(async () => {});
  await it.pass(10 * lingerMs);
  assert.ok(tries <= 12, `${tries}`);
});

test('a weight that was given in part is taken back when the start is over', async () => {
  const tried: boolean[] = [];
  using it = weighed({
    set: async (isSet) => {
      tried.push(isSet);
      if (!isSet) return;
      await new Promise((resolve) => setTimeout(resolve, 500));
      throw new PodvmError('internal', 'no descriptors');
    },
  });
  await it.pass(100);
  await it.starts.during(async () => {});
  await it.pass(10 * lingerMs);
  assert.deepEqual(tried, [false, true, false]);
});

test('a machine that is ending is left as it is, without a word', async () => {
  let tries = 0;
  const errors: string[] = [];
  using it = weighed({
    isNew: true,
    set: async () => {
      tries += 1;
      throw new PodvmError('failedPrecondition', 'it must be running, got stopping');
    },
    onError: (message) => errors.push(message),
  });
  await it.pass(10 * lingerMs);
  assert.equal(tries, 1);
  assert.deepEqual(errors, []);
});

test('no weight is changed after the end', async () => {
  using it = weighed({ isNew: true });
  it.starts.end();
  await it.starts.during(async () => {});
  await it.pass(10 * lingerMs);
  assert.deepEqual(it.changes, []);
});

test('a machine that is left to a later process has no weight meanwhile', async () => {
  using it = weighed({ isNew: true });
  const end = startIn(it.starts);
  await it.pass(100);
  await it.starts.leave();
  await end();
  await it.pass(10 * lingerMs);
  assert.deepEqual(it.changes, [false]);
  await it.starts.leave();
  assert.deepEqual(it.changes, [false]);
});
