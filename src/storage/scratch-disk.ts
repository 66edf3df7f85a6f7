import { chmod, chown, open, rm } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { run } from '#host/run.ts';
import type { ScratchDisk } from './volumes.ts';

export interface ScratchDiskRequest {
  /** File to make; its directory exists. */
  readonly path: string;
  readonly sizeBytes: number;
  /** The VMM's user, who gets the file. */
  readonly ownerUid: number;
}

/** An ext4 below this size has no room for its own tables, in bytes. */
export const minScratchBytes = 4 * 1024 * 1024;
export const maxScratchBytes = 1024 ** 4;

/**
 * Makes a sparse file with an empty ext4 in it. It lives as long as its sandbox, so it has no journal and nothing
 * reserved for root, and its tables are left unwritten: a fresh sparse file reads as zeroes. It counts the space of
 * directories (project quotas), so that the guest can limit volumes and layers. Errors: `invalid` (size), `exhausted`
 * (disk full), `cancelled`.
 */
export async function makeScratchDisk(request: ScratchDiskRequest, signal: AbortSignal): Promise<ScratchDisk> {
  const { path, sizeBytes, ownerUid } = request;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < minScratchBytes || sizeBytes > maxScratchBytes) {
    throw new PodvmError(
      'invalid',
      `Cannot make a scratch disk: its size must be ${minScratchBytes} to ${maxScratchBytes} bytes, got ${sizeBytes}`,
    );
  }
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.truncate(sizeBytes);
    } finally {
      await file.close();
    }
    const features = ['-O', '^has_journal,^resize_inode,quota,project', '-m', '0', '-i', '16384'];
    const lazy = ['-E', 'nodiscard,lazy_itable_init=1,root_owner=0:0,quotatype=prjquota'];
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', ...features, ...lazy, path], { signal });
    await chmod(path, 0o600);
    await chown(path, ownerUid, ownerUid);
  } catch (error) {
    await rm(path, { force: true });
    throw explain(error);
  }
  return { path, sizeBytes, [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}

function explain(error: unknown): unknown {
  const isFull = (error as NodeJS.ErrnoException).code === 'ENOSPC' || /No space left/i.test(String(error));
  if (!isFull) return error;
  return new PodvmError('exhausted', 'Cannot make a scratch disk: the disk is full', {
    cause: error,
    fix: 'Free some space.',
  });
}
