import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, open, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { entriesInUse } from './entries-in-use.ts';

const name = 'sysroot-0123456789abcdef';

/** Two state directories whose parts have the same names, as those of one version have. */
async function openTwo() {
  const root = await mkdtemp(join(tmpdir(), 'podvm in use '));
  const own = join(root, 'own');
  const other = join(root, 'other');
  await mkdir(join(own, name, 'usr/bin'), { recursive: true });
  await writeFile(join(own, name, 'usr/bin/qemu'), '');
  await cp(own, other, { recursive: true });
  return { own, other, root, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

/** What each of the two directories has in use. */
const usedOf = async ({ own, other }: { readonly own: string; readonly other: string }) =>
  await Promise.all([own, other].map(async (directory) => [...(await entriesInUse(directory, [name, 'none-0']))]));

test('a descriptor of a part, or of a file in it, keeps the part of its own state directory', async () => {
  await using two = await openTwo();
  assert.deepEqual(await usedOf(two), [[], []]);
  for (const path of [name, join(name, 'usr/bin/qemu')]) {
    await using _handle = await open(join(two.other, path), 'r');
    assert.deepEqual(await usedOf(two), [[], [name]], path);
  }
  assert.deepEqual(await usedOf(two), [[], []]);
});

test('a mount of what a part has, in a jail that shows nothing else, keeps it', async () => {
  await using two = await openTwo();
  const jail = join(two.root, 'jail');
  await mkdir(join(jail, 'usr'), { recursive: true });
  const script = `
    mount --bind "$1" "$2/usr"
    mount --bind "$2" "$2" && mount --rbind "$2" "$2"
    echo ready
    read -r _
  `;
  const inJail = ['--mount', '--propagation', 'private', 'sh', '-ec', script, 'sh', join(two.other, name, 'usr'), jail];
  const child = spawn('unshare', inJail, { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/' });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  assert.deepEqual(await usedOf(two), [[], [name]]);
  child.stdin.end('\n');
  await ended;
  assert.deepEqual(await usedOf(two), [[], []]);
});

test('a link is in use while what it leads to is, and a link to nothing never', async () => {
  await using two = await openTwo();
  const links = join(two.root, 'links');
  await mkdir(links);
  const linked = 'kernel-0123456789abcdef';
  await symlink(join(two.own, name), join(links, linked));
  await symlink('/nowhere', join(links, name));
  const used = async () => [...(await entriesInUse(links, [linked, name]))];
  assert.deepEqual(await used(), []);
  const handle = await open(join(two.own, name), 'r');
  assert.deepEqual(await used(), [linked]);
  await handle.close();
});
