import { chown, constants, type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { runImport } from './import/importer.ts';
import { layerFault } from './import/layer-fault.ts';
import type { Layer } from './source/layout.ts';
import type { ImageLimits } from './limits.ts';

export interface FlattenOptions {
  readonly limits: ImageLimits;
  /** Directory of extracted packages that holds `mkfs.erofs`. */
  readonly sysroot: string;
  /** Empty directory for the work; the file is made in it. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

const fileMode = 0o444;

/**
 * Merges layers, lowest first, into one read-only EROFS file, root's, and returns its path; the same layers give the same
 * bytes. What is in a layer is read by the importing process alone (`import/flatten-layers.ts`). Errors: `corrupt`
 * (digest, damaged or hostile tar), `exhausted` (limits, memory, time, disk), `unavailable`, `cancelled`.
 */
export async function flatten(layers: readonly Layer[], options: FlattenOptions): Promise<string> {
  const { sysroot, directory, signal, limits } = options;
  await using undo = new AsyncDisposableStack();
  const files: FileHandle[] = [];
  for (const [index, { path }] of layers.entries()) files.push(undo.use(await openLayer(path, index)));
  const job = { kind: 'flatten', limits, diffIds: layers.map(({ diffId }) => diffId) } as const;
  const doing = 'flatten the image';
  const work = join(directory, 'jail');
  const answer = await runImport(job, files, { doing, sysroot, work, signal });
  if (!('flattened' in answer)) throw new PodvmError('internal', `Cannot ${doing}: the answer is to another job`);
  const path = join(work, answer.flattened);
  await chown(work, 0, 0); // 0700: others that are nobody do not come in
  await takeOver(path);
  return path;
}

async function openLayer(path: string, index: number): Promise<FileHandle> {
  const fault = layerFault(index);
  // A pipe in a layout of others would never end, and a link there may lead to a file of root's.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (cause: unknown) => {
      const { code } = cause as NodeJS.ErrnoException;
      throw fault(code === 'ELOOP' || code === 'ENXIO' ? 'it is no file' : 'it is missing', cause);
    },
  );
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw fault('it is no file');
}

/** Makes a file of the importing process, which has ended, root's, and safe from a loss of power. */
async function takeOver(path: string): Promise<void> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const stats = await file.stat();
  if (!stats.isFile() || stats.nlink !== 1 || stats.size === 0)
    throw new PodvmError('internal', 'Cannot flatten the image: what was made of it is no file');
  await file.chown(0, 0);
  await file.chmod(fileMode);
  await file.sync();
}
