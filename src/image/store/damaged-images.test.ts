import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { ImageHealth } from './image-health.ts';
import {
  layerPath,
  layersDirectory,
  membersDirectory,
  readRecords,
  rootfsDirectory,
  rootfsPath,
  writeRecords,
} from './image-record.ts';
import type { Image } from '../images.ts';
import { mendImage } from './mend-image.ts';
import { digestOf } from '../oci.ts';
import { factsOf, sharedLayer } from './rootfs-file.ts';

const never = new AbortController().signal;

/** A directory of images with fake EROFS files of 12 KiB, whose last bytes are the image's name. */
async function openDirectory() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-records-'));
  await mkdir(rootfsDirectory(directory));
  await mkdir(layersDirectory(directory));
  await mkdir(membersDirectory(directory));
  const images = new Map<string, Image>();
  return {
    directory,
    images,
    fileOf: (name: string) => rootfsPath(directory, digestOf(name)),
    async add(name: string, more: Partial<Image> = {}): Promise<Image> {
      const id = digestOf(name);
      const bytes = Buffer.alloc(12 * 1024);
      bytes.writeUInt32LE(0xe0f5_e1e2, 1024);
      bytes.write(name, bytes.length - 100);
      const path = rootfsPath(directory, id);
      await writeFile(path, bytes);
      const image: Image = {
        id,
        references: [`docker.io/library/${name}:1`],
        digests: [],
        sizeBytes: bytes.length,
        createdAt: '2026-01-01T00:00:00Z',
        config: { volumes: ['/data'], cmd: ['sh'] },
        rootfs: await factsOf(path, digestOf(bytes), 0),
        ...more,
      };
      images.set(id, image);
      await writeRecords(directory, images.values());
      return image;
    },
    /** An image with a shared layer of that content. */
    async addWithLayer(name: string, content: string): Promise<Image & { readonly layer: string }> {
      const digest = digestOf(Buffer.from(content));
      const layer = layerPath(directory, digest);
      await writeFile(layer, content);
      const shared = await sharedLayer(layer, digest);
      return { ...(await this.add(name, { layers: [shared], sizeBytes: 12 * 1024 + shared.sizeBytes })), layer };
    },
    health: () =>
      new ImageHealth({ directory, images, log: silentLog, write: () => writeRecords(directory, images.values()) }),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}

async function overwrite(path: string, at: number, text: string): Promise<void> {
  const bytes = await readFile(path);
  bytes.write(text, at);
  await writeFile(path, bytes);
}

test('readRecords() makes a damaged or missing index from the images’ own records', async () => {
  await using place = await openDirectory();
  const { directory, images } = place;
  const first = await place.add('first');
  await place.add('second', { digests: [`docker.io/library/second@${digestOf('m')}`] });
  const index = join(directory, 'index.json');
  const whole = await readFile(index, 'utf8');
  for (const left of [undefined, '', '{', whole.slice(0, 300), '{"version":1,"images":[{"id":7}]}', '[]']) {
    if (left === undefined) await rm(index);
    else await writeFile(index, left);
    assert.deepEqual(new Set((await readRecords(directory)).values()), new Set(images.values()), `of ${left}`);
    assert.deepEqual(new Set((await readRecords(directory)).values()), new Set(images.values()));
    if (left !== undefined) assert.equal(await readFile(`${index}.damaged`, 'utf8'), left, 'it is put aside');
  }
  assert.equal((await readdir(rootfsDirectory(directory))).length, 2);
  // When two records have one name, as after a crash, the later one counts; a damaged record costs only its image.
  const records = join(directory, 'records');
  const recordOf = (image: Image) => join(records, `${image.id.slice('sha256:'.length)}.json`);
  const record = JSON.parse(await readFile(recordOf(first), 'utf8'));
  const both = { ...record, writtenAtMs: record.writtenAtMs - 1000 };
  both.image.references.push('docker.io/library/second:1');
  await writeFile(recordOf(first), JSON.stringify(both));
  await rm(index);
  assert.deepEqual((await readRecords(directory)).get(first.id)?.references, first.references);
  await writeFile(recordOf(first), 'x');
  await rm(index);
  assert.deepEqual([...(await readRecords(directory)).keys()], [digestOf('second')]);
});

test('readRecords() refuses files of a newer podvm, and changes nothing', async () => {
  await using place = await openDirectory();
  const { directory } = place;
  const image = await place.add('first');
  const index = join(directory, 'index.json');
  const own = join(directory, 'records', `${image.id.slice('sha256:'.length)}.json`);
  const newer = { kind: 'failedPrecondition', message: /a newer podvm wrote it, got version 2/ };
  for (const [path, without] of [
    [index, undefined],
    [own, undefined],
    [own, index],
  ] as const) {
    const before = await readFile(path, 'utf8');
    const kept = await readFile(index, 'utf8');
    await writeFile(path, before.replace('"version": 1', '"version": 2').replace('"image', '"new": 1, "image'));
    if (without !== undefined) await rm(without);
    await assert.rejects(readRecords(directory), newer);
    assert.match(await readFile(path, 'utf8'), /"version": 2/);
    assert.deepEqual(await readdir(rootfsDirectory(directory)), [`${image.id.slice('sha256:'.length)}.erofs`]);
    await writeFile(path, before);
    await writeFile(index, kept);
  }
  assert.equal((await readRecords(directory)).size, 1);
});

test('readRecords() keeps images whose file is missing or damaged, and reports which', async () => {
  await using place = await openDirectory();
  for (const name of ['gone', 'cut', 'zeroed', 'fine']) await place.add(name);
  await rm(place.fileOf('gone'));
  await truncate(place.fileOf('cut'), 8192);
  await overwrite(place.fileOf('zeroed'), 1024, '\0\0\0\0');
  const found = await readRecords(place.directory);
  assert.deepEqual(
    ['gone', 'cut', 'zeroed', 'fine'].map((name) => found.get(digestOf(name))?.damaged),
    [
      'its file is gone',
      'its file has 8192 bytes instead of 12288',
      'its first block differs from what was written',
      undefined,
    ],
  );
});

test('check() detects a changed byte, accepts a file that was only moved, and clears the damage with a sound file', async () => {
  await using place = await openDirectory();
  const { id, rootfs } = await place.add('image');
  const path = place.fileOf('image');
  const health = place.health();
  const look = async () => await health.check(id, 'look', never);
  assert.equal((await look())?.rootfs, rootfs, 'nothing was read');
  const good = await readFile(path);
  await writeFile(`${path}.copy`, good);
  await rename(`${path}.copy`, path);
  assert.equal((await look())?.damaged, undefined);
  assert.notEqual(place.images.get(id)?.rootfs?.inode, rootfs?.inode);
  await overwrite(path, 9000, 'x');
  const damaged = 'its content differs from what was written';
  assert.deepEqual(await Promise.all([look(), look()]).then((both) => both.map((one) => one?.damaged)), [
    damaged,
    damaged,
  ]);
  assert.equal((await readRecords(place.directory)).get(id)?.damaged, damaged, 'it is on record');
  await writeFile(path, good);
  assert.equal((await look())?.damaged, undefined);
  // Damage that keeps size, first block and time is detected only by reading.
  const { atime, mtime } = await stat(path);
  await utimes(path, atime, mtime);
  await look();
  const times = await stat(path);
  await overwrite(path, 9000, 'x');
  await utimes(path, times.atime, times.mtime);
  assert.equal((await health.check(id, 'idle', never))?.damaged, damaged);
  assert.equal((await look())?.damaged, damaged, 'and is remembered');
});

test('check() records missing facts of a file, as of an older podvm, unless it has no superblock', async () => {
  await using place = await openDirectory();
  const { rootfs: _none, ...old } = await place.add('old');
  place.images.set(old.id, old);
  assert.equal(
    (await place.health().check(old.id, 'look', never))?.rootfs?.digest,
    digestOf(await readFile(place.fileOf('old'))),
  );
  place.images.set(old.id, old);
  await overwrite(place.fileOf('old'), 1024, '\0\0\0\0');
  assert.equal((await place.health().check(old.id, 'look', never))?.damaged, 'its file has no superblock');
});

test('mendImage() fetches the same image by its digest, or says what to do', async () => {
  await using place = await openDirectory();
  const image = { ...(await place.add('app')), damaged: 'its file is gone' };
  const [near, far] = ['docker.io/library/app', 'r.example/app'].map((name) => `${name}@${digestOf('m')}`);
  const pulled = { ...image, digests: [far ?? '', near ?? ''] };
  const tried: string[] = [];
  const fails = async (name: string) => {
    tried.push(name);
    throw new PodvmError('unavailable', `Cannot pull ${name}: the registry does not answer`, { fix: 'Check it.' });
  };
  assert.equal(await mendImage('docker.io/library/app:1', pulled, 'IfNotPresent', async () => image), image);
  await assert.rejects(mendImage('docker.io/library/app:1', pulled, 'IfNotPresent', fails), {
    kind: 'unavailable',
    message:
      /^Cannot use image docker.io\/library\/app:1: it is damaged: its file is gone; .*the registry does not answer/,
    fix: 'Check it.',
  });
  assert.deepEqual(tried, [near, far]);
  await assert.rejects(mendImage('app:1', pulled, 'Never', fails), {
    kind: 'corrupt',
    fix: /podvm image pull docker.io/,
  });
  await assert.rejects(mendImage('app:1', image, 'Always', fails), { kind: 'corrupt', fix: /podvm image load/ });
  assert.equal(tried.length, 2);
});

test('readRecords() and check() find shared layers that are missing, cut, or changed, and clear a sound one', async () => {
  await using place = await openDirectory();
  const { id: other } = await place.addWithLayer('other', 'another');
  const { id, layer } = await place.addWithLayer('image', 'content');
  const health = place.health();
  const damage = async (depth: 'look' | 'read') => (await health.check(id, depth, never))?.damaged;
  assert.equal(await damage('look'), undefined);
  await writeFile(layer, 'c0ntent');
  assert.equal(await damage('look'), 'the content of a layer differs from what was written');
  await writeFile(layer, 'content');
  assert.equal(await damage('look'), undefined);
  await truncate(layer, 3);
  assert.equal((await readRecords(place.directory)).get(id)?.damaged, 'the file of a layer has 3 bytes instead of 7');
  await rm(layer);
  const found = await readRecords(place.directory);
  assert.deepEqual([found.get(id)?.damaged, found.get(other)?.damaged], ['the file of a layer is gone', undefined]);
});

test('a whole read leaves the source of a layer, by which pulls find it', async () => {
  await using place = await openDirectory();
  const { id, layers: [layer = assert.fail('no layer')] = [] } = await place.addWithLayer('image', 'content');
  const source = { members: digestOf('members'), diffId: digestOf('diff'), blob: digestOf('blob') };
  place.images.set(id, { ...(place.images.get(id) ?? assert.fail('gone')), layers: [{ ...layer, source }] });
  assert.deepEqual((await place.health().check(id, 'idle', never))?.layers, [{ ...layer, source }]);
});

test('readRecords() removes files of layers that no image has', async () => {
  await using place = await openDirectory();
  const { layer } = await place.addWithLayer('image', 'content');
  await writeFile(layerPath(place.directory, digestOf('none')), 'x');
  await readRecords(place.directory);
  assert.deepEqual(await readdir(layersDirectory(place.directory)), [basename(layer)]);
});
