import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LatelyUsed, whoGoesFirst } from './processor-turns.ts';

test('whoGoesFirst() names those that used little beside the one that used most, by their shares', () => {
  const of = (...machines: [cores: number, shares: number][]) =>
    whoGoesFirst(machines.map(([cores, shares]) => ({ cores, shares })));
  assert.deepEqual(of([0.1, 100], [0.5, 100], [0.45, 100]), [true, false, false]);
  assert.deepEqual(of([0.5, 1000], [0.5, 100]), [true, false], 'it has used less of what is its own');
  assert.deepEqual(of([0.2, 100]), [false], 'there is none to go before');
  assert.deepEqual(of([0, 100], [0, 100]), [false, false]);
});

test('count() knows a machine that never rests at once, and one that rests as long as it works little', () => {
  const [busy, idle] = [new LatelyUsed(), new LatelyUsed()];
  for (let look = 0; look < 120; look += 1) idle.count(0, 0.5);
  busy.count(0.4, 0.5);
  assert.equal(busy.cores, 0.8);
  let seconds = 0;
  for (; idle.cores < 0.53; seconds += 0.5) idle.count(0.4, 0.5);
  assert.ok(seconds > 30 && seconds < 90, `${seconds}`);
});
