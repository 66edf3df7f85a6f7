import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PoolDemand } from './pool-demand.ts';

const minute = 60_000;

test('a configured number does not change with the starts', () => {
  for (const size of [0, 3]) {
    const demand = new PoolDemand(size, 8);
    for (let at = 0; at < 20; at += 1) demand.ordered(at);
    assert.equal(demand.wanted(20), size);
  }
});

test('one machine waits without starts', () => {
  assert.equal(new PoolDemand('auto', 8).wanted(0), 1);
});

test('as many machines wait as the largest recent burst took, up to the limit', () => {
  const demand = new PoolDemand('auto', 4);
  for (const at of [0, 1_000, 2_000]) demand.ordered(at);
  assert.equal(demand.wanted(3_000), 3);
  for (const at of [3_000, 4_000, 5_000]) demand.ordered(at);
  assert.equal(demand.wanted(6_000), 4);
});

test('starts that are far apart need one machine', () => {
  const demand = new PoolDemand('auto', 8);
  for (let at = 0; at < 5; at += 1) demand.ordered(at * minute);
  assert.equal(demand.wanted(5 * minute), 1);
});

test('a burst is forgotten after ten minutes', () => {
  const demand = new PoolDemand('auto', 8);
  for (const at of [0, 10, 20]) demand.ordered(at);
  assert.equal(demand.wanted(9 * minute), 3);
  assert.equal(demand.wanted(10 * minute + 20), 1);
});
