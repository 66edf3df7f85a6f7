import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rooms } from './rooms.ts';

test('take() limits the total of one pod’s file servers, and disposing returns the share', () => {
  const rooms = new Rooms();
  const taken = Array.from({ length: 30 }, () => rooms.take('pod'));
  const descriptors = taken.map((room) => room.descriptors);
  assert.deepEqual(descriptors.slice(0, 7), [65_536, 65_536, 65_536, 32_768, 16_384, 8_192, 8_192]);
  const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0);
  assert.ok(sum(descriptors) < 460_000, String(sum(descriptors)));
  assert.ok(sum(taken.map((room) => room.memoryBytes)) < 1.7 * 2 ** 30);
  assert.equal(rooms.take('another').descriptors, 65_536);
  for (const room of taken) room[Symbol.dispose]();
  taken[0]?.[Symbol.dispose](); // a second disposal has no effect
  assert.equal(rooms.take('pod').descriptors, 65_536);
});
