import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mountAt, parseMountInfo } from './mount-table.ts';

const text = [
  '22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw',
  '80 22 0:40 / /pods/a/volumes/kubernetes.io~secret/s rw,relatime shared:9 master:2 - tmpfs tmpfs rw,size=1k',
  '81 22 254:0 /pods/a\\040b/x\\134y /mnt/a\\040b ro,relatime - ext4 /dev/vda rw',
  '82 22 0:41 / /mnt/a\\040b rw - tmpfs none ro',
  'no mount at all',
  '',
].join('\n');

test('parseMountInfo() reads devices, roots and points, with or without optional fields', () => {
  const mounts = parseMountInfo(text);
  assert.equal(mounts.length, 4);
  assert.deepEqual(mounts[1], {
    device: '0:40',
    root: '/',
    point: '/pods/a/volumes/kubernetes.io~secret/s',
    fileSystem: 'tmpfs',
    isReadOnly: false,
  });
  assert.equal(mounts[2]?.root, '/pods/a b/x\\y');
  assert.equal(mounts[2].point, '/mnt/a b');
  assert.deepEqual(
    mounts.map(({ isReadOnly }) => isReadOnly),
    [false, false, true, true], // by the mount, by the file system
  );
});

test('mountAt() finds the topmost mount at exactly that path', () => {
  const mounts = parseMountInfo(text);
  assert.equal(mountAt(mounts, '/mnt/a b')?.device, '0:41');
  assert.equal(mountAt(mounts, '/mnt'), undefined);
});
