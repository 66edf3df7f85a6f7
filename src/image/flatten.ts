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

export interface FlattenedImage {
  readonly path: string;
  readonly digest: string;
}

/**
 * Merges layers, lowest first, into one read-only EROFS file owned by root; the same layers give the same bytes. Only the importing process reads the content of layers (`import/flatten-layers.ts`). Errors: `corrupt`
 * (digest, damaged or hostile tar), `exhausted` (limits, memory, time, disk), `unavailable`, `cancelled`.
 */
export async function flatten(layers: readonly Layer[], options: FlattenOptions): Promise<FlattenedImage> {
  await using undo = new AsyncDisposableStack();
  const files: FileHandle[] = [];
  for (const [index, { path }] of layers.entries()) files.push(undo.use(await openLayer(path, layerFault(index))));
  const diffIds = layers.map(({ diffId }) => ({ diffId }));
  return await importLayers(diffIds, files, options);
}

/**
 * The same with layers that arrive in a directory meanwhile, as regular files with those names.
 */
export async function flattenArriving(
  layers: readonly Required<JobLayer>[],
  arriving: ArrivingLayers,
  options: FlattenOptions,
): Promise<FlattenedImage> {
  return await importLayers(layers, [], { ...options, arriving });
}

async function importLayers(
  layers: readonly JobLayer[],
  files: readonly FileHandle[],
  { directory, limits, ...options }: FlattenOptions & { readonly arriving?: ArrivingLayers },
): Promise<FlattenedImage> {
  const doing = 'flatten the image';
  const work = join(directory, 'jail');
  const answer = await runImport({ kind: 'flatten', limits, layers }, files, { doing, work, ...options });
  if (!('flattened' in answer)) throw new PodvmError('internal', `Cannot ${doing}: the answer belongs to another job`);
  const path = join(work, answer.flattened);
  await chown(work, 0, 0); // mode 0700: keeps out other processes of the jail's user
  await takeOver(path);
  return { path, digest: answer.digest };
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
