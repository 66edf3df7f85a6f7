import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { diskBytes } from '../disk-bytes.ts';
import type { Image, SharedLayer } from '../images.ts';
import { digestOf } from '../oci.ts';
import { layerPath, layersDirectory } from './image-record.ts';
import { SharedLayers } from './shared-layers.ts';

const never = new AbortController().signal;

async function openPlace() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-layers-'));
  await mkdir(layersDirectory(directory));
  const images = new Map<string, Image>();
  const layers = new SharedLayers(directory, images);
  let made = 0;
  const file = async (content: string, digest = digestOf(Buffer.from(content))) => {
    const path = join(directory, `made-${(made += 1)}`);
    await writeFile(path, content);
    return { path, digest };
  };
  const record = (id: string, of: readonly SharedLayer[], ownBytes = 0) => {
    const sizeBytes = of.reduce((sum, layer) => sum + layer.sizeBytes, ownBytes);
    const image: Image = { id, references: [], digests: [], sizeBytes, layers: of, createdAt: '', config: {} };
    images.set(id, image);
    return image;
  };
  return {
    layers,
    images,
    file,
    pathOf: (content: string) => layerPath(directory, { digest: digestOf(Buffer.from(content)) }),
    add: async (id: string, contents: readonly string[]) => {
      const files = await Promise.all(contents.map((content) => file(content)));
      return await layers.add(files, async (placed) => record(id, placed, 10), never);
    },
    remove: async (image: Image) => {
      images.delete(image.id);
      await layers.removeOf(image);
    },
    stored: async () => {
      const names = await readdir(layersDirectory(directory));
      return (await Promise.all(names.map((name) => readFile(join(layersDirectory(directory), name), 'utf8')))).sort();
    },
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
  await place.remove(second);
  assert.deepEqual(await place.stored(), []);
});

test('a file with the digest of another layer is never taken for it', async () => {
  await using place = await openPlace();
  const honest = await place.add('honest', ['base']);
  const lying = await place.file('evil', honest.layers?.[0]?.digest);
  const unused = () => assert.fail('the image was recorded');
  await assert.rejects(place.layers.add([lying], unused, never), { kind: 'corrupt', message: /has another digest/ });
  assert.deepEqual(await place.stored(), ['base']);
});

test('a layer that was stored first under the digest of another is replaced by that', async () => {
  await using place = await openPlace();
  const lying = await place.file('evil', digestOf(Buffer.from('base')));
  await place.layers.add([lying], async () => undefined, never);
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

test('layers of an image that could not be recorded are removed, unless another image has them', async () => {
  await using place = await openPlace();
  await place.add('first', ['base']);
  const files = [await place.file('base'), await place.file('more')];
  const failing = () => Promise.reject(new Error('the disk is full'));
  await assert.rejects(place.layers.add(files, failing, never), { message: 'the disk is full' });
  assert.deepEqual(await place.stored(), ['base']);
});
