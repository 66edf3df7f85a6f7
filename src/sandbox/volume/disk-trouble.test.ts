import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diskTroubleOf } from './disk-trouble.ts';

test('diskTroubleOf() describes the disk, the failed operation and the reason', () => {
  assert.match(
    diskTroubleOf({ serial: 'scratch', operation: 'write', isFull: true }),
    /^Disk scratch could not be written: the host's file system is full/,
  );
  assert.match(
    diskTroubleOf({ serial: 'block-0', operation: 'read', isFull: false }),
    /^Disk block-0 could not be read: .*error/,
  );
});
