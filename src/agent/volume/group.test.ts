import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FileKind, FileStatus } from '#engine/engine.ts';
import { giveToGroup } from './group.ts';

/** A file system in memory: paths with kind, mode and group. */
function tree(entries: Readonly<Record<string, readonly [FileKind, number, number]>>) {
  const files = new Map(Object.entries(entries).map(([path, [kind, mode, gid]]) => [path, { kind, mode, gid }]));
  const order: string[] = [];
  const at = (path: string) => files.get(path) ?? assert.fail(`nothing at ${path}`);
  return {
    order,
    shown: () => Object.fromEntries([...files].map(([path, { mode, gid }]) => [path, `${gid} ${mode.toString(8)}`])),
    parts: {
      status: (path: string): FileStatus => {
        const rest = { uid: 0, size: 0, inode: 1, device: 1, major: 0, minor: 0, modifiedMs: 0 };
        return { ...at(path), ...rest };
      },
      list: (path: string) =>
        [...files.keys()]
          .filter((each) => each.startsWith(`${path}/`))
          .map((each) => each.slice(path.length + 1))
          .filter((name) => !name.includes('/')),
      changeOwner: (path: string, uid: number, gid: number) => {
        assert.equal(uid, -1);
        at(path).gid = gid;
        order.push(path);
      },
      changeMode: (path: string, mode: number) => {
        assert.notEqual(at(path).kind, 'symlink', 'a mode is that of what a symlink leads to');
        at(path).mode = mode;
      },
      setTimer: (_ms: number, handler: () => void) => {
        queueMicrotask(handler);
        return 0;
      },
    },
  };
}

test('giveToGroup() changes the group of a whole tree, its root last, and follows no symlink', async () => {
  const { parts, shown, order } = tree({
    '/v': ['directory', 0o755, 0],
    '/v/d': ['directory', 0o700, 0],
    '/v/d/f': ['file', 0o600, 0],
    '/v/link': ['symlink', 0o777, 0],
  });
  await giveToGroup(parts, '/v', 42);
  assert.deepEqual(shown(), { '/v': '42 2775', '/v/d': '42 2770', '/v/d/f': '42 660', '/v/link': '42 777' });
  assert.equal(order.at(-1), '/v');
});

test('giveToGroup() skips a tree whose root already has the group', async () => {
  const { parts, shown } = tree({ '/v': ['directory', 0o2775, 42], '/v/f': ['file', 0o600, 7] });
  await giveToGroup(parts, '/v', 42);
  assert.equal(shown()['/v/f'], '7 600');
});
