import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ContainerProcess } from '#wire/container-params.ts';
import { resolveUser } from './users.ts';

const accounts = {
  '/etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n',
  '/etc/group': 'root:x:0:\nwheel:x:10:root\nwww:x:34:\nlogs:x:35:web,root\n',
} as const;
type Path = keyof typeof accounts;
const paths = Object.keys(accounts) as Path[]; // SAFE: keys of the constant above

/** Files of an image, each read to its end once. */
const parts = () => {
  const unread = new Map(paths.map((path, fd) => [fd, accounts[path]]));
  return {
    openBeneath: (_root: number, path: string) => paths.findIndex((each) => each === path),
    read(fd: number, bytes: Uint8Array): number {
      const text = unread.get(fd) ?? '';
      unread.set(fd, '' as (typeof accounts)[Path]);
      return new TextEncoder().encodeInto(text, bytes).written;
    },
    close: () => undefined,
    decodeUtf8: (bytes: Uint8Array, from: number, to: number) => new TextDecoder().decode(bytes.subarray(from, to)),
  };
};

const resolve = (more: Partial<ContainerProcess>) =>
  resolveUser(parts(), 0, { user: '', supplementalGroups: [], ...more } as ContainerProcess); // SAFE: reads no other field

test('resolveUser() gives a process its own group, those of the image and those of the pod', () => {
  const cases: readonly (readonly [Partial<ContainerProcess>, uid: number, gid: number, groups: readonly number[]])[] =
    [
      [{}, 0, 0, [0, 10, 35]],
      [{ user: 'web' }, 33, 34, [34, 35]],
      [{ user: '33', supplementalGroups: [7, 34], fsGroup: 8 }, 33, 34, [7, 8, 34, 35]],
      [{ user: 'web:logs' }, 33, 35, [35]],
      [{ user: '1234' }, 1234, 0, [0]],
      [{ user: '1234:1234', supplementalGroups: [5] }, 1234, 1234, [5, 1234]],
      [{ user: 'web', group: 9, supplementalGroupsPolicy: 'strict' }, 33, 9, [9]],
    ];
  for (const [process, uid, gid, additionalGids] of cases) {
    const user = resolve(process);
    assert.deepEqual([user.uid, user.gid, user.additionalGids], [uid, gid, additionalGids]);
  }
});

test('resolveUser() refuses names that the image lacks, and root where it must not run', () => {
  for (const user of ['nobody', 'web:nogroup', '4294967295'])
    assert.throws(() => resolve({ user }), /the image has no/);
  assert.throws(() => resolve({ requireNonRoot: true }), /runAsNonRoot/);
  assert.equal(resolve({ user: '33', requireNonRoot: true }).home, '/srv');
});
