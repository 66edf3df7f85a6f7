import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeClock } from '#host/testing/clock.conformance.ts';
import { createFakeClock } from './fake-clock.ts';

describeClock('for tests', () => {
  const clock = createFakeClock();
  return { clock, pass: (ms) => clock.advance(ms) };
});

test('the fake clock advances neither by itself nor by a change of the date', async () => {
  const clock = createFakeClock(1000);
  let calls = 0;
  clock.after(10, () => (calls += 1));
  clock.setDate(1_000_000);
  await clock.settle();
  assert.deepEqual([clock.now(), clock.monotonicMs(), calls, clock.pending], [1_000_000, 1000, 0, 1]);
  await clock.advance(9);
  assert.deepEqual([clock.now(), calls], [1_000_009, 0]);
  await clock.advance(1);
  assert.deepEqual([calls, clock.pending], [1, 0]);
});
