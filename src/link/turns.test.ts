import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Turns } from './turns.ts';

test('used() lets a guest go on that takes less than its share, however long', () => {
  const turns = new Turns(0, { share: 0.5, savedMs: 10 });
  for (let ms = 0; ms < 1000; ms += 10) assert.equal(turns.used(4, ms + 4), 0);
});

test('used() has a guest wait that has used up what it saved, and no longer than it takes to save that', () => {
  const turns = new Turns(0, { share: 0.5, savedMs: 10 });
  assert.equal(turns.used(10, 10), 0); // saved 10, used 10
  assert.equal(turns.used(10, 20), 10); // saved 5 meanwhile, used 10
  assert.equal(turns.used(0, 30), 0);
});

test('used() gives a guest that never rests no more than its share, and what it had saved', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.01, max: 50, noNaN: true }), { minLength: 20 }), (looks) => {
      const turns = new Turns(0, { share: 1 / 3, savedMs: 50 });
      let [nowMs, usedMs] = [0, 0];
      for (const lookMs of looks) {
        const waitMs = turns.used(lookMs, nowMs + lookMs);
        nowMs += lookMs;
        usedMs += lookMs;
        nowMs += waitMs;
      }
      assert.ok(usedMs <= nowMs / 3 + 50 + 1e-6, `${usedMs} of ${nowMs}`);
    }),
  );
});
