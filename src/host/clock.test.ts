import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from './clock.ts';

test('monotonicMs() is whole, since a signal takes no other time, and goes on', () => {
  const before = systemClock.monotonicMs();
  assert.ok(Number.isInteger(before));
  AbortSignal.timeout(systemClock.monotonicMs() + 1000 - before);
  assert.ok(systemClock.monotonicMs() >= before);
});
