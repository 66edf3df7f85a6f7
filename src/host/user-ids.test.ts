import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mappedIds, neededIds, subordinateVmms } from './user-ids.ts';

test('mappedIds() counts the ids from 0 on that a namespace has, in any order of its ranges', () => {
  assert.equal(mappedIds('         0          0 4294967295\n'), 4_294_967_295);
  assert.equal(mappedIds('         0       1000          1\n         1     100000      65536\n'), 65_537);
  assert.equal(mappedIds('1 100000 65536\n0 1000 1\n'), 65_537);
  assert.equal(mappedIds('0 1000 1\n'), 1);
  assert.equal(mappedIds('1000 1000 1\n'), 0, 'without root');
  assert.equal(mappedIds(''), 0);
});

test('the ids of VMMs of an ordinary user are among those that the user must have', () => {
  assert.ok(subordinateVmms.first + subordinateVmms.count < neededIds && neededIds < 65_534);
});
