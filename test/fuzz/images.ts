import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { readArchive } from '#image/source/archive.ts';
import { flatten } from '#image/flatten.ts';
import { type ImageLimits, imageLimits } from '#image/limits.ts';
import { readErofs } from '../images/image-tree.ts';
import { archiveOf, type HostileImage, images, imageSchema } from './image-steps.ts';
import { whyNoServer } from './scripted-guest.ts';
import { type Bench, defineTarget } from './target.ts';

/** The real importer, in its jail, with hostile archives. */
export const imageImport = defineTarget<HostileImage>({
  name: 'images',
  whyNot: whyNoServer,
  runs: images,
  schema: imageSchema,
  runTimeoutMs: 120_000,
  open,
});

const MiB = 1024 ** 2;
/** Small limits, which generated images can reach. */
const limits: ImageLimits = {
  ...imageLimits,
  maxImageBytes: MiB,
  maxEntries: 1000,
  maxMetadataBytes: 100_000,
  maxPathSteps: 20_000,
  maxRatio: 20,
  freeBytes: MiB / 4,
  maxImportMemoryBytes: 1024 * MiB,
  maxImportMs: 60_000,
};
/** Bytes that EROFS adds to the content of files, at most. */
const erofsRoomBytes = 4 * MiB;
/** Kinds of errors with which a hostile image is refused. */
const refusals: readonly string[] = ['corrupt', 'exhausted', 'invalid', 'unsupported', 'notFound'];
const bounds = /more memory|takes more than \d+ s|more disk space/;

async function open(): Promise<Bench<HostileImage>> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-images-'));
  await chmod(directory, 0o711);
  await writeFile(join(directory, 'outside'), 'secret');
  let given = 0;
  return {
    async give(image) {
      const place = join(directory, `run-${(given += 1)}`);
      await mkdir(place, { mode: 0o711 });
      try {
        await load(image, place);
        assert.deepEqual((await readdir(directory)).sort(), ['outside', `run-${given}`]);
        assert.equal(await readFile(join(directory, 'outside'), 'utf8'), 'secret');
      } finally {
        await rm(place, { recursive: true, force: true });
      }
    },
    finish: () => Promise.resolve(),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

/** Asserts that the image is loaded completely, or refused by a limit or a check. */
async function load(image: HostileImage, place: string): Promise<void> {
  const path = join(place, 'archive.tar');
  await writeFile(path, archiveOf(image));
  const signal = AbortSignal.timeout(90_000);
  try {
    const work = join(place, 'unpacked');
    await mkdir(work, { mode: 0o711 });
    const found = await readArchive(path, { work, signal, limits, processor: { architecture: 'amd64', level: 2 } });
    for (const [at, { source }] of found.entries()) {
      const made = join(place, `made-${at}`);
      await mkdir(made, { mode: 0o711 });
      const { path: file } = await flatten(source.layers, { limits, directory: made, signal });
      await look(file);
    }
  } catch (error) {
    assert.ok(error instanceof PodvmError, String(error));
    assert.ok(refusals.includes(error.kind), `${error.kind}: ${error.message} ${error.tail.join('\n')}`);
    assert.match(error.message, /^Cannot [\u0020-\u007e]+$/, 'one line of plain text');
    assert.doesNotMatch(error.message, bounds, 'an image of some kilobytes came to a bound of its process');
  }
  const beside = (await readdir(place)).filter((name) => !/^(?:archive\.tar|unpacked|made-\d+)$/.test(name));
  assert.deepEqual(beside, []);
}

async function look(file: string): Promise<void> {
  const { size, uid, mode } = await stat(file);
  assert.ok(size <= limits.maxImageBytes + erofsRoomBytes, `${size} bytes`);
  assert.deepEqual([uid, mode & 0o7777], [0, 0o444]);
  const tree = Object.keys(await readErofs(file));
  assert.ok(tree.length <= limits.maxEntries + 1, `${tree.length} files`);
}
