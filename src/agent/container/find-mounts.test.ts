import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findMounts } from './find-mounts.ts';

const table = [
  '22 1 0:30 / / rw,relatime - overlay overlay rw',
  '23 22 254:0 /volumes/a /data rw,relatime - ext4 /dev/sda rw',
  '24 22 254:0 /volumes/b /etc/config ro,relatime - ext4 /dev/sda rw',
  '25 22 0:40 / /run/secrets/token ro,relatime - tmpfs tmpfs rw',
].join('\n');

test('findMounts() tells which wanted mounts are there, and whether they are writable', () => {
  const wanted = [
    { destination: '/data/', volume: 'a', readOnly: false },
    { destination: '/etc/./config', volume: 'b', readOnly: true },
    { destination: '/gone', volume: 'c', readOnly: false },
    { destination: '/var/run/secrets/token', volume: 'd', readOnly: true }, // /var/run is a symlink
  ];
  const opened = new Set<number>();
  const links: Readonly<Record<string, string>> = {
    '/proc/self/fd/3': '/run/podvm/containers/main/rootfs',
    '/proc/self/fd/9': '/run/podvm/containers/main/rootfs/run/secrets/token',
  };
  const parts = {
    readText: (path: string) => (path === '/proc/7/mountinfo' ? table : assert.fail(path)),
    openBeneath(root: number, path: string) {
      assert.equal(root, 3);
      if (path !== '/var/run/secrets/token') throw Object.assign(new Error(path), { code: 'ENOENT' });
      opened.add(9);
      return 9;
    },
    readLink: (path: string) => links[path] ?? assert.fail(path),
    close: (fd: number) => void opened.delete(fd),
  };
  assert.deepEqual(findMounts(parts, { pid: 7, root: 3, mounts: wanted }), [
    { volume: 'a', isWantedReadOnly: false, found: { isReadOnly: false } },
    { volume: 'b', isWantedReadOnly: true, found: { isReadOnly: true } },
    { volume: 'c', isWantedReadOnly: false },
    { volume: 'd', isWantedReadOnly: true, found: { isReadOnly: true } },
  ]);
  assert.deepEqual([...opened], []);
});
