import { mkdir, open, stat } from 'node:fs/promises';
import type { Stats } from 'node:fs';
import { dirname } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import type { PodContainer } from '../schema/container.ts';
import type { Pod } from '../schema/objects.ts';
import type { Volume } from '../schema/volume.ts';

type HostPath = NonNullable<Volume['hostPath']>;

/** Modes of missing hostPaths, as kubelet creates them (pkg/volume/hostpath). */
const directoryMode = 0o755;
const fileMode = 0o644;

/**
 * Checks the host paths that the container mounts before each creation, and creates those whose type requests it.
 * Errors: `notFound`, `failedPrecondition`, naming the volume.
 */
export async function ensureHostPaths(
  { spec }: Pod,
  { volumeMounts, volumeDevices }: Pick<PodContainer, 'volumeMounts' | 'volumeDevices'>,
): Promise<void> {
  const hostPathOf = (name: string) => spec.volumes.find((volume) => volume.name === name)?.hostPath;
  for (const { name } of volumeMounts) {
    const hostPath = hostPathOf(name);
    // Without a type the path is created as by containerd, CRI-O and Docker.
    const makes = hostPath?.type === '' ? 'DirectoryOrCreate' : hostPath?.type;
    if (hostPath !== undefined) await ensureHostPath(name, hostPath, makes);
  }
  for (const { name } of volumeDevices) {
    const hostPath = hostPathOf(name);
    if (hostPath !== undefined) await ensureHostPath(name, hostPath, hostPath.type);
  }
}

/** Checks one path. `makes`: the type by which a missing path is created, if any. */
async function ensureHostPath(volume: string, { path, type }: HostPath, makes = type): Promise<void> {
  const refuse = (kind: 'notFound' | 'failedPrecondition', why: string, cause?: unknown) =>
    new PodvmError(kind, `Cannot mount volume ${volume}: host path ${path} ${why}`, {
      cause,
      fix:
        kind === 'notFound'
          ? 'Create it on the host, or use the type DirectoryOrCreate or FileOrCreate.'
          : 'Correct path and type of the volume, or what is there.',
    });
  let found = await statusOf(path).catch((cause: unknown) => {
    throw refuse('failedPrecondition', `cannot be read: ${messageOf(cause)}`, cause);
  });
  if (found === undefined && (makes === 'DirectoryOrCreate' || makes === 'FileOrCreate')) {
    try {
      await make(path, makes);
    } catch (cause) {
      throw refuse('failedPrecondition', `cannot be created: ${messageOf(cause)}`, cause);
    }
    found = await statusOf(path);
  }
  if (found === undefined) throw refuse('notFound', 'does not exist');
  if (type.startsWith('Directory') && !found.isDirectory()) throw refuse('failedPrecondition', 'is not a directory');
  if (type === 'BlockDevice' && !found.isBlockDevice()) throw refuse('failedPrecondition', 'is not a block device');
  if (type.startsWith('File') && !found.isFile()) throw refuse('failedPrecondition', 'is not a regular file');
}

async function statusOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Creates a missing path and its parents; existing ones are kept. */
async function make(path: string, type: 'DirectoryOrCreate' | 'FileOrCreate'): Promise<void> {
  const directory = type === 'FileOrCreate' ? dirname(path) : path;
  await mkdir(directory, { recursive: true, mode: directoryMode });
  if (type === 'FileOrCreate') await (await open(path, 'a', fileMode)).close();
}
