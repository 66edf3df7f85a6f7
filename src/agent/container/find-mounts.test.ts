import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findMounts } from './find-mounts.ts';

const table = [
  '22 1 0:30 / / rw,relatime - overlay overlay rw',
  '23 22 254:0 /volumes/a /data rw,relatime - ext4 /dev/sda rw',
  '24 22 254:0 /volumes/b /etc/config ro,relatime - ext4 /dev/sda rw',
].join('\n');

test('findMounts() tells which wanted mounts are there, and whether they are writable', () => {
  const wanted = [
    { destination: '/data/', volume: 'a', readOnly: false },
    { destination: '/etc/./config', volume: 'b', readOnly: true },
    { destination: '/gone', volume: 'c', readOnly: false },
  ];
  const readText = (path: string) => (path === '/proc/7/mountinfo' ? table : assert.fail(path));
  assert.deepEqual(findMounts({ readText }, { pid: 7, mounts: wanted }), [
    { volume: 'a', isWantedReadOnly: false, found: { isReadOnly: false } },
    { volume: 'b', isWantedReadOnly: true, found: { isReadOnly: true } },
    { volume: 'c', isWantedReadOnly: false },
  ]);
});
