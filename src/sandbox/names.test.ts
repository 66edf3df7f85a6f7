import assert from 'node:assert/strict';
import { test } from 'node:test';
import { imageUser } from '#image/import/image-user.ts';
import { subordinateVmms } from '#host/user-ids.ts';
import { rangeWithin, userIdsOf } from './names.ts';

test('userIdsOf() assigns each state directory its own constant range of valid ids', () => {
  const ranges = Array.from({ length: 100 }, (_, ino) => userIdsOf({ dev: 64769n, ino: BigInt(ino) }));
  assert.deepEqual(userIdsOf({ dev: 64769n, ino: 7n }), ranges[7]);
  for (const { first, count } of ranges) {
    assert.ok(first > 1_879_048_191 && first > imageUser && first + count <= 0x7fff_ffff, `${first}`);
    assert.equal((first - (ranges[0]?.first ?? 0)) % count, 0);
  }
  assert.ok(new Set(ranges.map(({ first }) => first)).size >= 98); // two of a hundred may meet
});

test('rangeWithin() gives state directories of an ordinary user ranges of the few ids that user has', () => {
  const ranges = Array.from({ length: 100 }, (_, ino) => rangeWithin(subordinateVmms, 256, `64769:${ino}`));
  const end = subordinateVmms.first + subordinateVmms.count;
  for (const { first, count } of ranges) assert.ok(first >= subordinateVmms.first && first + count <= end, `${first}`);
  assert.equal(new Set(ranges.map(({ first }) => first)).size, 16);
});
