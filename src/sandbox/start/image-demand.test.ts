import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ImageDemand } from './image-demand.ts';

test('the favourite is the image that most pods began with; of several, the last one', () => {
  const demand = new ImageDemand(() => 0);
  assert.equal(demand.favourite, undefined);
  for (const [id, favourite] of [
    ['a', 'a'],
    ['b', 'b'],
    ['a', 'a'],
    ['b', 'b'],
    ['b', 'b'],
    ['c', 'b'],
  ] as const) {
    demand.started(id);
    assert.equal(demand.favourite, favourite);
  }
});

test('a start counts for ten minutes', () => {
  let nowMs = 0;
  const demand = new ImageDemand(() => nowMs);
  demand.started('a');
  demand.started('a');
  nowMs = 9 * 60_000;
  demand.started('b');
  assert.equal(demand.favourite, 'a');
  nowMs = 11 * 60_000;
  assert.equal(demand.favourite, 'b');
  nowMs = 30 * 60_000;
  assert.equal(demand.favourite, undefined);
});
