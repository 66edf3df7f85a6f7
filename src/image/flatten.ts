import { chown, constants, type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { type ArrivingLayers, runImport } from './import/importer.ts';
import { pageBytes } from './import/erofs-format.ts';
import { type BlobLayer, firstFile, type ImportTask, type JobLayer, type StoredLayer } from './import/job.ts';
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
const sharedLayerBytes = 3 * 1024 ** 2;
/** Layers of an image with such files: each is opened for every machine that has the image. Lower layers are more often shared. */
export const maxSharedLayers = 32;

/** A file, and the digest that its maker states. */
export interface MadeFile {
  readonly path: string;
  readonly digest: string;
}

/** The file of a layer, and the list of its members. `pulled`: full name of its blob, digest of the uncompressed layer. */
export interface MadeLayer extends MadeFile {
  readonly members: MadeFile;
  readonly pulled?: { readonly blob: string; readonly diffId: string };
}

/** Layers that need not be fetched, by the digests of their blobs. */
export type StoredLayers = ReadonlyMap<string, { readonly diffId: string; readonly files: MadeLayer }>;

export interface FlattenedImage extends MadeFile {
  /** Files of large layers: their bytes, one behind the other, follow those of the image's own file. */
  readonly layers: readonly MadeLayer[];
}

/** A layer whose blob arrives as a file of that name. `blob`: its full name, with the repository. `size`: in bytes. */
export interface ArrivingLayer {
  readonly name: string;
  readonly blob: string;
  readonly size: number;
}

/**
 * Merges layers, lowest first, into one read-only EROFS file system, in files owned by root; the same layers give the same
 * bytes. Only the importing process reads the content of layers (`import/flatten-layers.ts`). Errors: `corrupt` (digest,
 * damaged or hostile tar), `exhausted` (limits, memory, time, disk), `unavailable`, `cancelled`.
 */
export async function flatten(layers: readonly Layer[], options: FlattenOptions): Promise<FlattenedImage> {
  await using undo = new AsyncDisposableStack();
  const files: FileHandle[] = [];
  for (const [index, { path }] of layers.entries()) files.push(undo.use(await openLayer(path, layerFault(index))));
  const hasFile = filesLeft();
  const job: JobLayer[] = [];
  for (const [at, { diffId }] of layers.entries())
    job.push({ diffId, hasFile: hasFile((await files[at]?.stat())?.size ?? 0), blob: firstFile + at });
  const { made, ...image } = await importLayers({ kind: 'flatten', layers: job }, files, options);
  return { ...image, layers: made.flatMap(({ layer }) => layer) };
}

/**
 * The same with layers that arrive in a directory meanwhile, as regular files, or are stored already. `diffIds`: digests of
 * the uncompressed layers, which are found out meanwhile. Errors: also those of `diffIds`.
 */
export async function flattenArriving(
  layers: readonly (ArrivingLayer | MadeLayer)[],
  diffIds: Promise<readonly string[]>,
  arriving: ArrivingLayers,
  options: FlattenOptions,
): Promise<FlattenedImage> {
  await using undo = new AsyncDisposableStack();
  const lists: FileHandle[] = [];
  const hasFile = filesLeft(layers.filter((layer) => !('name' in layer)).length);
  const parts: (Omit<BlobLayer, 'diffId'> | StoredLayer)[] = [];
  for (const layer of layers) {
    if ('name' in layer) parts.push({ hasFile: hasFile(layer.size), blob: layer.name });
    else {
      parts.push({ blocks: (await stat(layer.path)).size / pageBytes, members: firstFile + lists.length });
      lists.push(undo.use(await open(layer.members.path)));
    }
  }
  const task = diffIds.then((all): ImportTask => {
    const withDigest = (part: (typeof parts)[number], at: number): JobLayer =>
      'members' in part ? part : { ...part, diffId: all[at] ?? '' };
    return { kind: 'flatten', layers: parts.map(withDigest) };
  });
  task.catch(() => undefined); // the process may have failed before
  const { made, ...image } = await importLayers(task, lists, { ...options, arriving });
  const byNumber = new Map(made.map(({ at, layer }) => [at, layer]));
  const all = await diffIds;
  const inOrder = [...layers.entries()].flatMap(([at, layer]) => {
    if (!('name' in layer)) return layer;
    const own = byNumber.get(at);
    return own === undefined ? [] : { ...own, pulled: { blob: layer.blob, diffId: all[at] ?? '' } };
  });
  return { ...image, layers: inOrder };
}

async function importLayers(
  task: ImportTask | Promise<ImportTask>,
  files: readonly FileHandle[],
  { directory, limits, ...options }: FlattenOptions & { readonly arriving?: ArrivingLayers },
): Promise<MadeFile & { readonly made: readonly { readonly at: number; readonly layer: MadeLayer }[] }> {
  const doing = 'flatten the image';
  const work = join(directory, 'jail');
  const answer = await runImport(task, files, { doing, limits, work, ...options });
  if (!('flattened' in answer)) throw new PodvmError('internal', `Cannot ${doing}: the answer belongs to another job`);
  await chown(work, 0, 0); // mode 0700: keeps out other processes of the jail's user
  const take = async (file: string, digest: string, unitBytes: number): Promise<MadeFile> => {
    const path = join(work, file);
    await takeOver(path, unitBytes);
    return { path, digest };
  };
  // Together, since each waits for the disk.
  const [own, ...made] = await Promise.all([
    take(answer.flattened, answer.digest, pageBytes),
    ...answer.layers.map(async ({ at, file, digest, members }) => {
      const [content, list] = await Promise.all([take(file, digest, pageBytes), take(members.file, members.digest, 1)]);
      return { at, layer: { ...content, members: list } };
    }),
  ]);
  return { ...own, made };
}

/** Decides for layer after layer, by the size of its blob in bytes, whether it has a file of its own, as so many others have. */
function filesLeft(others = 0): (size: number) => boolean {
  let left = Math.max(0, maxSharedLayers - others);
  return (size) => {
    if (size < sharedLayerBytes || left === 0) return false;
    left -= 1;
    return true;
  };
}

/** Gives a file of the importing process, which has ended, to root, and syncs it to disk. */
async function takeOver(path: string, unitBytes: number): Promise<void> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const stats = await file.stat();
  if (!stats.isFile() || stats.nlink !== 1 || stats.size === 0 || stats.size % unitBytes !== 0)
    throw new PodvmError('internal', 'Cannot flatten the image: the result is not a regular file of whole blocks');
  await file.chown(0, 0);
  await file.chmod(fileMode);
  await file.sync();
}
