import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ImageDemand } from './image-demand.ts';

test('the favourites are the images that most pods began with; of several, the last ones', () => {
  const demand = new ImageDemand(() => 0);
  assert.deepEqual(demand.favourites, []);
  for (const [id, favourites] of [
    ['a', ['a']],
    ['b', ['b', 'a']],
    ['a', ['a', 'b']],
    ['b', ['b', 'a']],
    ['b', ['b', 'a']],
    ['c', ['b', 'a', 'c']],
    ['d', ['b', 'a', 'd']],
    ['d', ['b', 'd', 'a']],
  ] as const) {
    demand.started(id);
    assert.deepEqual(demand.favourites, favourites);
  }
});

test('an image that pods have stopped to begin with is forgotten after eight others', () => {
  const demand = new ImageDemand(() => 0);
  for (let count = 0; count < 100; count += 1) demand.started('a');
  for (let count = 0; count < 5; count += 1) demand.started('b');
  assert.deepEqual(demand.favourites, ['b', 'a']);
  for (let count = 0; count < 3; count += 1) demand.started('b');
  assert.deepEqual(demand.favourites, ['b']);
});

test('a start counts for ten minutes', () => {
  let nowMs = 0;
  const demand = new ImageDemand(() => nowMs);
  demand.started('a');
  demand.started('a');
  nowMs = 9 * 60_000;
  demand.started('b');
  assert.deepEqual(demand.favourites, ['a', 'b']);
  nowMs = 11 * 60_000;
  assert.deepEqual(demand.favourites, ['b']);
  nowMs = 30 * 60_000;
  assert.deepEqual(demand.favourites, []);
});

test('an image that failed is forgotten until a pod begins with it again', () => {
  const demand = new ImageDemand(() => 0);
  for (const id of ['a', 'b', 'a']) demand.started(id);
  demand.failed('a');
  assert.deepEqual(demand.favourites, ['b']);
  demand.started('a');
  assert.deepEqual(demand.favourites, ['a', 'b']);
});
