import { chmod, chown, open, rm, truncate } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { blockBytes, roomOf } from './ext4-room.ts';
import type { ScratchDisk } from './volumes.ts';

export interface ScratchDiskRequest {
  /** File to create; its directory exists. */
  readonly path: string;
  readonly sizeBytes: number;
  /** The VMM's user, who becomes the owner. */
  readonly ownerUid: number;
}

/** Specifies the room for files, in bytes, instead of the disk's size. */
export type VolumeDiskRequest = Omit<ScratchDiskRequest, 'sizeBytes'> & { readonly roomBytes: number };

/** Smallest size of an ext4 with its own tables, in bytes. */
export const minScratchBytes = 4 * 1024 * 1024;
export const maxScratchBytes = 1024 ** 4;

/**
 * Makes a sparse file with an empty ext4 in it. The disk lives as long as its sandbox, so it has no journal and no
 * blocks reserved for root. Its tables are left unwritten, since a new sparse file reads as zeroes. Project quotas
 * count the space of directories, so that the guest can limit volumes and layers. Errors: `invalid` (size), `exhausted`
 * (disk full), `cancelled`.
 */
export async function makeScratchDisk(request: ScratchDiskRequest, signal: AbortSignal): Promise<ScratchDisk> {
  const { path, sizeBytes } = request;
  checkScratchBytes(sizeBytes);
  return await makeFile(request, async () => {
    await format(path, { sizeBytes, bytesPerInode: 16_384 }, signal);
    return sizeBytes;
  });
}

/**
 * Makes the disk of one volume with the given room for files, plus some blocks for directories. Further writes fail
 * with ENOSPC. Errors: `invalid` (room), `exhausted` (disk full), `cancelled`.
 */
export async function makeVolumeDisk(request: VolumeDiskRequest, signal: AbortSignal): Promise<ScratchDisk> {
  const { path, roomBytes } = request;
  checkRoomBytes(roomBytes);
  const wanted = Math.ceil(roomBytes / blockBytes) * blockBytes + directoriesBytes;
  return await makeFile(request, async () => {
    let sizeBytes = diskBytesFor(roomBytes);
    for (let tries = 1; ; tries += 1) {
      await format(path, { sizeBytes, bytesPerInode: blockBytes }, signal); // one inode for each block
      const surplus = (await roomOf(path)) - wanted;
      const isSmallest = sizeBytes === minVolumeDiskBytes;
      if (surplus >= 0 && (surplus <= directoriesBytes || isSmallest || tries >= maxTries)) return sizeBytes;
      sizeBytes = Math.max(minVolumeDiskBytes, sizeBytes - surplus);
    }
  });
}

/** Errors: `invalid`. */
export function checkScratchBytes(sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes) && sizeBytes >= minScratchBytes && sizeBytes <= maxScratchBytes) return;
  throw new PodvmError(
    'invalid',
    `Cannot make a scratch disk: its size must be ${minScratchBytes} to ${maxScratchBytes} bytes, got ${sizeBytes}`,
    { fix: 'Change resources.limits.ephemeral-storage of the containers.' },
  );
}

/** Errors: `invalid`. */
export function checkRoomBytes(roomBytes: number): void {
  if (Number.isSafeInteger(roomBytes) && roomBytes >= 0 && diskBytesFor(roomBytes) <= maxScratchBytes) return;
  throw new PodvmError('invalid', `Cannot make a disk for a volume: it cannot have room for ${roomBytes} bytes`, {
    fix: 'Change the sizeLimit of the volume.',
  });
}

/** Smallest size; mke2fs fails below some 200 KiB. */
const minVolumeDiskBytes = 512 * 1024;

/** Upper limit of the size of such a disk, in bytes: one inode for each block needs tables of a sixteenth. */
export const diskBytesFor = (roomBytes: number): number =>
  Math.ceil((roomBytes * 1.1) / blockBytes) * blockBytes + 2 * 1024 * 1024;

/** Blocks of the volume's directories and of the quota file. */
const directoriesBytes = 16 * blockBytes;
const maxTries = 8;

async function makeFile(
  { path, ownerUid }: Pick<ScratchDiskRequest, 'path' | 'ownerUid'>,
  fill: () => Promise<number>,
): Promise<ScratchDisk> {
  const file = await open(path, 'wx', 0o600).catch((error: unknown) => {
    throw explain(error); // a file that is there already is not ours to remove
  });
  try {
    await file.close();
    const sizeBytes = await fill();
    await chmod(path, 0o600);
    await chown(path, ownerUid, ownerUid);
    return { path, sizeBytes, [Symbol.asyncDispose]: () => rm(path, { force: true }) };
  } catch (error) {
    await rm(path, { force: true });
    throw explain(error);
  }
}

interface Format {
  readonly sizeBytes: number;
  readonly bytesPerInode: number;
}

async function format(path: string, { sizeBytes, bytesPerInode }: Format, signal: AbortSignal): Promise<void> {
  await truncate(path, 0);
  await truncate(path, sizeBytes);
  const units = ['-b', String(blockBytes), '-i', String(bytesPerInode), '-m', '0'];
  const features = ['-O', '^has_journal,^resize_inode,quota,project', ...units];
  const lazy = ['-E', 'nodiscard,lazy_itable_init=1,root_owner=0:0,quotatype=prjquota'];
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', ...features, ...lazy, path], { signal });
}

function explain(error: unknown): unknown {
  const isFull = (error as NodeJS.ErrnoException).code === 'ENOSPC' || /No space left/i.test(String(error));
  if (!isFull) return error;
  return new PodvmError('exhausted', 'Cannot make a scratch disk: the disk is full', {
    cause: error,
    fix: 'Free space on the file system of the state directory.',
  });
}
