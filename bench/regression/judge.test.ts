import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ratioOf, regressedOf } from './judge.ts';

test('a figure has regressed if it grew by more than 15 % in the middle one of its pairs', () => {
  const base = [100, 200, 100, 300, 100];
  const grown = (factor: number) => ({ base, checkout: base.map((value) => value * factor) });
  assert.equal(ratioOf(grown(1.1)).toFixed(3), '1.100');
  assert.deepEqual(regressedOf({ start: grown(1.14), exec: grown(1.16), memory: grown(0.8) }), ['exec']);
});

test('a busy moment that both or one of them met does not count', () => {
  const base = [100, 300, 100, 100, 100];
  assert.equal(ratioOf({ base, checkout: [100, 300, 100, 250, 100] }), 1);
});

test('a figure without values has not passed', () => {
  assert.deepEqual(regressedOf({ start: { base: [], checkout: [] }, exec: { base: [1], checkout: [Number.NaN] } }), [
    'start',
    'exec',
  ]);
});
