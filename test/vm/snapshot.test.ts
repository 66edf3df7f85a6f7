import assert from 'node:assert/strict';
import { link, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, beforeEach, suite, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { mkfsErofs } from '#image/snapshot/flatten-layers.ts';
import { imageLimits } from '#image/limits.ts';
import { openSnapshotImages } from '#image/snapshot/snapshot-images.ts';
import { readErofs, sysroot, traces } from '../images/image-tree.ts';
import { whyNoVm } from './node.ts';

const soon = () => AbortSignal.timeout(60_000);

await suite('images of snapshots', { skip: await whyNoVm() }, () => {
  let before: readonly string[] = [];
  let work: string;
  /** Directories of the layers, topmost first. */
  let layers: readonly string[];
  const open = async (limits = imageLimits) =>
    await openSnapshotImages({ directory: join(work, 'images'), sysroot: await sysroot(), log: silentLog, limits });
  const kept = async () => (await readdir(join(work, 'images'))).filter((name) => name.endsWith('.erofs'));
  const makeLayers = async (...names: readonly string[]) => {
    const directories = names.map((name) => join(work, name, 'fs'));
    for (const directory of directories) await mkdir(directory, { recursive: true });
    return directories;
  };

  beforeEach(async () => {
    before = await traces();
    work = await mkdtemp('/var/tmp/podvm-store-');
    layers = await makeLayers('2', '1');
    const [upper = '', lower = ''] = layers;
    await mkdir(join(lower, 'etc'));
    await writeFile(join(lower, 'etc/shadow'), 'secret', { mode: 0o600 });
    await run('chown', ['1000:1001', join(lower, 'etc/shadow')]);
    await writeFile(join(lower, 'gone'), '');
    await writeFile(join(lower, 'tool'), '#!', { mode: 0o755 });
    await link(join(lower, 'tool'), join(lower, 'same-tool'));
    await run('chmod', ['4755', join(lower, 'tool')]);
    await run('mknod', [join(upper, 'gone'), 'c', '0', '0']);
    await mkdir(join(upper, 'etc'));
    await writeFile(join(upper, 'etc/motd'), 'hello');
  });
  after(async () => assert.deepEqual(await traces(), before));

  const cleanUp = () => rm(work, { recursive: true });
  const merged = {
    '.': 'dir 0755',
    etc: 'dir 0755',
    'etc/motd': 'file 0644 "hello"',
    'etc/shadow': 'file 0600 1000:1001 "secret"',
    'same-tool': 'file 4755 "#!"',
    tool: 'is same-tool',
  };

  test('hold() merges the layers once, and keeps the file for the next process', async () => {
    const images = await open();
    const both = await Promise.all([images.hold(layers, soon()), images.hold(layers, soon())]);
    assert.equal(both[0].id, both[1].id);
    assert.deepEqual(await readErofs(both[0].rootfsPath), merged);
    const { ino, mode } = await stat(both[0].rootfsPath);
    assert.equal(mode & 0o777, 0o444);
    await using again = await (await open()).hold(layers, soon());
    assert.equal((await stat(again.rootfsPath)).ino, ino);
    assert.equal(await again.findDamage(soon()), undefined);
    await using single = await images.hold(layers.slice(1), soon());
    assert.notEqual(single.id, both[0].id);
    await cleanUp();
  });

  test('hold() merges layers that are EROFS files', async () => {
    const images = await open();
    const files = layers.map((_, at) => join(work, `${at}.erofs`));
    const [program, ...args] = mkfsErofs(await sysroot());
    for (const [at, file] of files.entries()) await run(program, [...args, file, layers[at] ?? '']);
    await using held = await images.hold(files, soon());
    assert.deepEqual(await readErofs(held.rootfsPath), merged);
    await assert.rejects(images.hold([files[0] ?? '', layers[1] ?? ''], soon()), { kind: 'invalid' });
    const { stdout } = await run('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']);
    assert.doesNotMatch(stdout, new RegExp(work), 'a loop device is left');
    await cleanUp();
  });

  test('a file is removed with its layers unless it is held, and made again for others at the same path', async () => {
    const images = await open();
    const held = await images.hold(layers, soon());
    await rename(join(work, '2'), join(work, 'old'));
    const [others] = [await makeLayers('3')];
    await using _other = await images.hold(others, soon());
    assert.equal((await kept()).length, 2, 'the first is held');
    await held[Symbol.asyncDispose]();
    await makeLayers('2');
    await using again = await images.hold(layers, soon());
    assert.notEqual(again.id, held.id);
    assert.equal((await kept()).length, 2, 'the first is gone');
    await cleanUp();
  });

  test('holdMade() holds a file again by its id, while its layers are there', async () => {
    const images = await open();
    const held = await images.hold(layers, soon());
    await held[Symbol.asyncDispose]();
    await using again = await images.holdMade(held.id);
    assert.ok(again);
    assert.equal(again.rootfsPath, held.rootfsPath);
    assert.deepEqual(await readErofs(again.rootfsPath), merged);
    await rename(join(work, '2'), join(work, 'old'));
    assert.equal(await images.holdMade(held.id), undefined);
    await rename(join(work, 'old'), join(work, '2'));
    await rm(held.rootfsPath);
    assert.equal(await images.holdMade(held.id), undefined);
    await cleanUp();
  });

  test('hold() refuses invalid snapshots, and leaves nothing', async () => {
    const images = await open();
    await assert.rejects(images.hold([], soon()), { kind: 'invalid' });
    await assert.rejects(images.hold([join(work, 'missing')], soon()), { kind: 'notFound' });
    await assert.rejects(images.hold(await makeLayers('a:b'), soon()), { kind: 'invalid' });
    const many = Array.from({ length: 400 }, (_, at) => `layer-with-a-long-name-${at}`);
    await assert.rejects(images.hold(await makeLayers(...many), soon()), { kind: 'exhausted' });
    await assert.rejects(images.hold(layers, AbortSignal.abort()), { kind: 'cancelled' });
    const small = await open({ ...imageLimits, maxImportMs: 1 });
    await assert.rejects(small.hold(layers, soon()), { kind: 'timeout' });
    assert.deepEqual(await readdir(join(work, 'images')), []);
    await cleanUp();
  });
});
