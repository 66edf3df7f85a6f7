import assert from 'node:assert/strict';
import { link, mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readDiskUsage } from './disk-usage.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const never = new AbortController().signal;
const megabyte = 1_048_576;

test(
  'readDiskUsage() measures each part, marks those of an earlier set-up, and counts linked files once',
  { skip },
  async () => {
    await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-df-'));
    const root = work.path;
    const file = async (path: string, megabytes: number) => {
      await mkdir(join(root, path, '..'), { recursive: true });
      await writeFile(join(root, path), Buffer.alloc(megabytes * megabyte, 1));
    };
    const [now, old] = ['sysroot-0123456789abcdef', 'sysroot-fedcba9876543210'];
    await file(`parts/${now}/usr`, 4);
    await file(`parts/${old}/usr`, 2);
    await file('templates/t-1/memory', 3);
    await file('images/rootfs/a.erofs', 5);
    await mkdir(join(root, 'sandboxes/s-1'), { recursive: true });
    await link(join(root, 'images/rootfs/a.erofs'), join(root, 'sandboxes/s-1/a.erofs'));
    await file('apt/lists', 1);
    await file('ended/p-1/log', 1);
    const paths = ['sysroot', 'kernel', 'initramfs', 'modules', 'fileServer', 'agent', 'key', 'generation'];
    const made = {
      qemuVersion: '1',
      kernelVersion: '1',
      crunVersion: '1',
      versions: {},
      parts: [join(root, 'parts', now)],
    };
    await mkdir(join(root, 'assets'));
    const current = { ...Object.fromEntries(paths.map((name) => [name, name])), ...made };
    await writeFile(join(root, 'assets/current.json'), JSON.stringify(current));

    const { uses, totalBytes } = await readDiskUsage(root, never);
    const rounded = uses.map(({ bytes, ...use }) => ({ ...use, megabytes: Math.round(bytes / megabyte) }));
    assert.deepEqual(rounded, [
      { kind: 'part', name: now, isOld: false, megabytes: 4 },
      { kind: 'part', name: old, isOld: true, megabytes: 2 },
      { kind: 'template', name: 't-1', isOld: false, megabytes: 3 },
      { kind: 'images', isOld: false, megabytes: 5 },
      { kind: 'pods', isOld: false, megabytes: 0 },
      { kind: 'ended', isOld: false, megabytes: 1 },
      { kind: 'other', isOld: false, megabytes: 1 },
    ]);
    assert.equal(
      totalBytes,
      uses.reduce((sum, { bytes }) => sum + bytes, 0),
    );
  },
);

test('readDiskUsage() finds nothing before set-up', { skip }, async () => {
  const { totalBytes, uses } = await readDiskUsage('/nowhere/podvm', never);
  assert.deepEqual([totalBytes, uses.map(({ kind }) => kind)], [0, ['other']]);
});
