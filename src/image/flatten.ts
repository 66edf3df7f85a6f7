import { chown, constants, type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { type ArrivingLayers, runImport } from './import/importer.ts';
import type { JobLayer } from './import/job.ts';
import { layerFault } from './import/layer-fault.ts';
import { openLayer } from './import/open-layer.ts';
import type { Layer } from './source/layout.ts';
import type { ImageLimits } from './limits.ts';

export interface FlattenOptions {
  readonly limits: ImageLimits;
  /** Empty directory for the work; the file is made in it. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

const fileMode = 0o444;
/** A layer whose blob has at least this size, in bytes, has a file of its own, which images can share. */
const sharedLayerBytes = 2 * 1024 ** 2;
/** Layers of an image with such files: each is opened for every machine that has the image. Lower layers are more often shared. */
const maxSharedLayers = 32;

/** `size`: of the blob, in bytes. */
type SizedLayer = Omit<JobLayer, 'hasFile'> & { readonly size: number };

/** A file, and the digest that its maker states. */
export interface MadeFile {
  readonly path: string;
  readonly digest: string;
}

export interface FlattenedImage extends MadeFile {
  /** Files of large layers: their bytes, one behind the other, follow those of the image's own file. */
  readonly layers: readonly MadeFile[];
}

/**
 * Merges layers, lowest first, into one read-only EROFS file system, in files owned by root; the same layers give the same bytes. Only the importing process reads the content of layers (`import/flatten-layers.ts`). Errors: `corrupt`
 * (digest, damaged or hostile tar), `exhausted` (limits, memory, time, disk), `unavailable`, `cancelled`.
 */
export async function flatten(layers: readonly Layer[], options: FlattenOptions): Promise<FlattenedImage> {
  await using undo = new AsyncDisposableStack();
  const files: FileHandle[] = [];
  for (const [index, { path }] of layers.entries()) files.push(undo.use(await openLayer(path, layerFault(index))));
  const sizes = await Promise.all(files.map(async (file) => (await file.stat()).size));
  const sized = layers.map(({ diffId }, at) => ({ diffId, size: sizes[at] ?? 0 }));
  return await importLayers(sized, files, options);
}

/**
 * The same with layers that arrive in a directory meanwhile, as regular files with those names.
 */
export async function flattenArriving(
  layers: readonly (SizedLayer & { readonly blob: string })[],
  arriving: ArrivingLayers,
  options: FlattenOptions,
): Promise<FlattenedImage> {
  return await importLayers(layers, [], { ...options, arriving });
}

async function importLayers(
  layers: readonly SizedLayer[],
  files: readonly FileHandle[],
  { directory, limits, ...options }: FlattenOptions & { readonly arriving?: ArrivingLayers },
): Promise<FlattenedImage> {
  const doing = 'flatten the image';
  const work = join(directory, 'jail');
  const answer = await runImport({ kind: 'flatten', limits, layers: withFiles(layers) }, files, {
    doing,
    work,
    ...options,
  });
  if (!('flattened' in answer)) throw new PodvmError('internal', `Cannot ${doing}: the answer belongs to another job`);
  const path = join(work, answer.flattened);
  await chown(work, 0, 0); // mode 0700: keeps out other processes of the jail's user
  const made = answer.layers.map(({ file, digest }) => ({ path: join(work, file), digest }));
  for (const file of [path, ...made.map((layer) => layer.path)]) await takeOver(file);
  return { path, digest: answer.digest, layers: made };
}

/** Decides which layers have files of their own. */
function withFiles(layers: readonly SizedLayer[]): readonly JobLayer[] {
  let left = maxSharedLayers;
  return layers.map(({ size, ...layer }) => {
    const hasFile = size >= sharedLayerBytes && left > 0;
    if (hasFile) left -= 1;
    return { ...layer, hasFile };
  });
}

/** Gives a file of the importing process, which has ended, to root, and syncs it to disk. */
async function takeOver(path: string): Promise<void> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const stats = await file.stat();
  if (!stats.isFile() || stats.nlink !== 1 || stats.size === 0)
    throw new PodvmError('internal', 'Cannot flatten the image: the result is not a regular file');
  await file.chown(0, 0);
  await file.chmod(fileMode);
  await file.sync();
}
