import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { portionsOf } from './portions.ts';

test('portionsOf() gives each item its own portion while there are enough', () => {
  assert.deepEqual(portionsOf([1, 2, 3], 3), [[1], [2], [3]]);
  assert.deepEqual(portionsOf([], 3), []);
});

test('portionsOf() loses no item, keeps their order, and makes no portion empty or much larger than another', () => {
  fc.assert(
    fc.property(fc.array(fc.nat()), fc.integer({ min: 1, max: 30 }), (items, most) => {
      const portions = portionsOf(items, most);
      assert.deepEqual(portions.flat(), items);
      assert.equal(portions.length, Math.min(most, items.length));
      const sizes = portions.map(({ length }) => length);
      assert.ok(items.length === 0 || Math.max(...sizes) - Math.min(...sizes) <= 1, String(sizes));
    }),
  );
});
