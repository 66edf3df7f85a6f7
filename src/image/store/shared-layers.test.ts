import assert from 'node:assert/strict';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '#host/process/run.ts';
import { diskBytes } from '../disk-bytes.ts';
import type { MadeLayer } from '../flatten.ts';
import type { Image, SharedLayer } from '../images.ts';
import { blobName } from '../names.ts';
import { digestOf } from '../oci.ts';
import { layerPath, layersDirectory, membersDirectory, membersPath } from './image-record.ts';
import { SharedLayers } from './shared-layers.ts';

const never = new AbortController().signal;

async function openPlace() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-layers-'));
  for (const made of [layersDirectory(directory), membersDirectory(directory)]) await mkdir(made);
  const images = new Map<string, Image>();
  const layers = new SharedLayers(directory, images);
  let made = 0;
  const write = async (content: string) => {
    const path = join(directory, `made-${(made += 1)}`);
    await writeFile(path, content);
    return { path, digest: digestOf(content) };
  };
  /** A layer as an import makes it, whose blob has the digest `blob:<content>`. */
  const layer = async (content: string, repository = 'shop/app'): Promise<MadeLayer> => ({
    ...(await write(content)),
    members: await write(`members of ${content}`),
    pulled: { blob: blobName(repository, `blob:${content}`), diffId: `diff:${content}` },
  });
  const record = (id: string, of: readonly SharedLayer[]) => {
    const sizeBytes = of.reduce((sum, { sizeBytes: bytes }) => sum + bytes, 10);
    const digests = [`shop/app@${digestOf(id)}`]; // its layers may have come from elsewhere
    const image: Image = { id, references: [], digests, sizeBytes, layers: of, createdAt: '', config: {} };
    images.set(id, image);
    return image;
  };
  const contentsOf = async (inside: string) =>
    (await Promise.all((await readdir(inside)).map((name) => readFile(join(inside, name), 'utf8')))).sort();
  return {
    directory,
    layers,
    layer,
    record,
    pathOf: (content: string) => layerPath(directory, digestOf(content)),
    membersOf: (content: string) => membersPath(directory, digestOf(`members of ${content}`)),
    async add(id: string, contents: readonly string[], repository?: string): Promise<Image> {
      const files = await Promise.all(contents.map((content) => layer(content, repository)));
      return await layers.add(files, async (placed) => record(id, placed), never);
    },
    async remove(image: Image): Promise<void> {
      images.delete(image.id);
      await layers.removeOf(image);
    },
    /** Blobs that need not be fetched for an image of that repository. */
    async found(repository: string, ...contents: string[]) {
      const into = await mkdtemp(join(directory, 'pull-'));
      const blobs = contents.map((content) => `blob:${content}`);
      return [...(await layers.find(repository, blobs, into, never))].map(
        ([blob, { files }]) => [blob, files] as const,
      );
    },
    stored: () => contentsOf(layersDirectory(directory)),
    lists: () => contentsOf(membersDirectory(directory)),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}

test('images with a layer in common have one file of it, which goes with the last of them', async () => {
  await using place = await openPlace();
  const first = await place.add('first', ['base', 'one']);
  const { ino } = await stat(place.pathOf('base'));
  const second = await place.add('second', ['base', 'two', 'two']);
  assert.equal((await stat(place.pathOf('base'))).ino, ino);
  assert.deepEqual(await place.stored(), ['base', 'one', 'two']);
  assert.deepEqual(
    second.layers?.map(({ sizeBytes }) => sizeBytes),
    [4, 3, 3],
  );
  assert.equal(diskBytes([first, second]), 10 + 10 + 4 + 3 + 3);
  await place.remove(first);
  assert.deepEqual(await place.stored(), ['base', 'two']);
  assert.deepEqual(await place.lists(), ['members of base', 'members of two']);
  await place.remove(second);
  assert.deepEqual([...(await place.stored()), ...(await place.lists())], []);
});

test('a file with the digest of another layer is never taken for it', async () => {
  await using place = await openPlace();
  await place.add('honest', ['base']);
  const lying = { ...(await place.layer('evil')), digest: digestOf('base') };
  const unused = () => assert.fail('the image was recorded');
  await assert.rejects(place.layers.add([lying], unused, never), { kind: 'corrupt', message: /has another digest/ });
  assert.deepEqual(await place.stored(), ['base']);
});

test('a layer that was stored first under the digest of another is replaced by that', async () => {
  await using place = await openPlace();
  const lying = { ...(await place.layer('evil')), digest: digestOf('base') };
  await place.layers.add([lying], async (placed) => place.record('evil', placed), never);
  assert.deepEqual(await place.stored(), ['evil']);
  await place.add('honest', ['base']);
  assert.deepEqual(await place.stored(), ['base']);
});

test('a damaged file is replaced by that of the next image with the layer', async () => {
  await using place = await openPlace();
  const before = await place.add('before', ['base']);
  await writeFile(place.pathOf('base'), 'bose');
  const after = await place.add('after', ['base']);
  assert.deepEqual(await place.stored(), ['base']);
  assert.notEqual(after.layers?.[0]?.inode, before.layers?.[0]?.inode); // which tells the first image to read it
});

test('images are added and removed while files of another are compared, which sees what became of them', async () => {
  await using place = await openPlace();
  await place.add('first', ['base']);
  const second = await place.add('second', ['one']);
  const slow = join(place.directory, 'slow');
  await run('mkfifo', [slow]);
  const files = [await place.layer('one'), { ...(await place.layer('base')), path: slow }];
  const adding = place.layers.add(files, async (placed) => place.record('third', placed), never);
  let isAdded = false;
  const added = adding.finally(() => (isAdded = true));
  await using writing = await open(slow, 'w'); // waits until it is read
  await place.remove(second);
  await place.add('fourth', ['four']);
  assert.deepEqual(await place.stored(), ['base', 'four']);
  assert.equal(isAdded, false);
  // It compares again, since the other file is gone.
  await writeFile(`${slow}.again`, 'base');
  await rename(`${slow}.again`, slow);
  await writing.writeFile('base');
  await writing.close();
  await added;
  assert.deepEqual(await place.stored(), ['base', 'four', 'one']);
});

test('layers of an image that could not be recorded are removed, unless another image has them', async () => {
  await using place = await openPlace();
  await place.add('first', ['base']);
  const files = [await place.layer('base'), await place.layer('more')];
  const failing = () => Promise.reject(new Error('the disk is full'));
  await assert.rejects(place.layers.add(files, failing, never), { message: 'the disk is full' });
  assert.deepEqual(await place.stored(), ['base']);
});

test('no files stay of an image that another call has added first', async () => {
  await using place = await openPlace();
  await place.add('first', ['base']);
  await place.layers.add([await place.layer('base'), await place.layer('more')], async () => undefined, never);
  assert.deepEqual(await place.stored(), ['base']);
  assert.deepEqual(await place.lists(), ['members of base']);
});

test('nothing stays of an image whose list of members has another digest than stated', async () => {
  await using place = await openPlace();
  await place.add('first', ['base']);
  const lying = { ...(await place.layer('evil')).members, digest: digestOf('members of base') };
  const unused = () => assert.fail('the image was recorded');
  const made = { ...(await place.layer('more')), members: lying };
  await assert.rejects(place.layers.add([made], unused, never), { kind: 'corrupt' });
  assert.deepEqual(await place.stored(), ['base']);
  assert.deepEqual(await place.lists(), ['members of base']);
});

test('find() gives layers that came from the same repository alone, also when their image is removed meanwhile', async () => {
  await using place = await openPlace();
  const image = await place.add('app', ['base', 'one']);
  await place.add('other', ['theirs'], 'shop/app2');
  const [[blob, files] = assert.fail('none'), ...more] = await place.found('shop/app', 'base', 'theirs', 'new');
  assert.deepEqual([blob, more], ['blob:base', []]);
  await place.remove(image);
  assert.deepEqual(await place.stored(), ['theirs']);
  await place.layers.add([files], async (placed) => place.record('next', placed), never);
  assert.deepEqual(await place.stored(), ['base', 'theirs']);
});

test('find() prefers the newest image, which fetched the layer again where an older one was no use', async () => {
  await using place = await openPlace();
  const lying = await place.layer('base');
  const pulled = { blob: blobName('shop/app', 'blob:base'), diffId: 'diff:other' };
  await place.layers.add([{ ...lying, pulled }], async (placed) => place.record('old', placed), never);
  await place.add('new', ['base']);
  const [[, files] = assert.fail('none')] = await place.found('shop/app', 'base');
  assert.equal(files.pulled?.diffId, 'diff:base');
});

test('find() gives no more layers than an image may have', async () => {
  await using place = await openPlace();
  const names = (first: number) => Array.from({ length: 20 }, (_, at) => `layer ${first + at}`);
  await place.add('one', names(0));
  await place.add('two', names(20));
  assert.equal((await place.found('shop/app', ...names(0), ...names(20))).length, 32);
  assert.deepEqual(await place.found('shop/app', ...Array.from({ length: 33 }, () => 'layer 0')), []);
});

test('find() leaves out layers whose files are changed, lost or cannot be read', async () => {
  await using place = await openPlace();
  await place.add('app', ['a', 'b', 'c', 'd', 'e']);
  await writeFile(place.pathOf('a'), 'x');
  await rm(place.pathOf('b'));
  await writeFile(place.membersOf('c'), '[]');
  await rm(place.membersOf('e'));
  await mkdir(place.membersOf('e'));
  assert.deepEqual(
    (await place.found('shop/app', 'a', 'b', 'c', 'd', 'e')).map(([blob]) => blob),
    ['blob:d'],
  );
});
