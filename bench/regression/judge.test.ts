import assert from 'node:assert/strict';
import { test } from 'node:test';
import { doubtfulRatio, grownOf, mostRatio, ratioOf } from './judge.ts';

test('a figure has regressed if it grew by more than 15 %', () => {
  const base = [100, 200, 100, 300, 100];
  const grown = (factor: number) => ({ base, checkout: base.map((value) => value * factor) });
  assert.equal(ratioOf(grown(1.1)).toFixed(3), '1.100');
  const figures = { start: grown(1.14), exec: grown(1.16), memory: grown(0.8) };
  assert.deepEqual(grownOf(figures, mostRatio), ['exec']);
  assert.deepEqual(grownOf(figures, doubtfulRatio), ['start', 'exec']);
});

test('a busy moment that both or one of them met does not count', () => {
  const base = [100, 300, 100, 100, 100];
  assert.equal(ratioOf({ base, checkout: [100, 300, 100, 250, 100] }), 1);
});

test('load that one of them met in most rounds by chance does not count', () => {
  assert.equal(ratioOf({ base: [100, 100, 100, 100, 100], checkout: [100, 130, 100, 130, 130] }), 1);
});

test('load that rises while both run does not count, nor does it hide what has grown', () => {
  const rising = [100, 120, 140, 160, 180, 200];
  const other = [110, 110, 150, 150, 190, 190]; // measured before and after the base in turn
  assert.ok(ratioOf({ base: rising, checkout: other }) < 1.05);
  assert.ok(ratioOf({ base: rising, checkout: other.map((value) => value * 1.25) }) > 1.15);
});

test('a figure without values has not passed', () => {
  const figures = { start: { base: [], checkout: [] }, exec: { base: [1], checkout: [Number.NaN] } };
  assert.deepEqual(grownOf(figures, mostRatio), ['start', 'exec']);
});
