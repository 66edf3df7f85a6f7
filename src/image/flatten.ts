import { chown, constants, type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { runImport } from './import/importer.ts';
import { layerFault } from './import/layer-fault.ts';
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
  const { directory, signal, limits } = options;
  await using undo = new AsyncDisposableStack();
  const files: FileHandle[] = [];
  for (const [index, { path }] of layers.entries()) files.push(undo.use(await openLayer(path, index)));
  const job = { kind: 'flatten', limits, diffIds: layers.map(({ diffId }) => diffId) } as const;
  const doing = 'flatten the image';
  const work = join(directory, 'jail');
  const answer = await runImport(job, files, { doing, work, signal });
  if (!('flattened' in answer)) throw new PodvmError('internal', `Cannot ${doing}: the answer belongs to another job`);
  const path = join(work, answer.flattened);
  await chown(work, 0, 0); // mode 0700: keeps out other processes of the jail's user
  await takeOver(path);
  return { path, digest: answer.digest };
}

async function openLayer(path: string, index: number): Promise<FileHandle> {
  const fault = layerFault(index);
  // A pipe in another program's layout would block forever, and a link may lead to a file that only root can read.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (cause: unknown) => {
      const { code } = cause as NodeJS.ErrnoException;
      throw fault(code === 'ELOOP' || code === 'ENXIO' ? 'it is not a regular file' : 'it is missing', cause);
    },
  );
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw fault('it is not a regular file');
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
