import { statfs } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';

/** Part of a file system for images that stays free for other uses: 5 %, at most 256 MiB. */
const reservedPart = 0.05;
const maxReservedBytes = 256 * 1024 ** 2;

/** Checks that the bytes fit on the disk before any is written. Errors: `exhausted`. */
export async function assertRoom(directory: string, bytes: number, doing: string): Promise<void> {
  const { bavail, blocks, bsize } = await statfs(directory);
  const free = bavail * bsize;
  const reserved = Math.min(maxReservedBytes, blocks * bsize * reservedPart);
  if (bytes <= free - reserved) return;
  throw new PodvmError(
    'exhausted',
    `Cannot ${doing}: the disk is full: ${bytes} bytes are needed beside ${Math.ceil(reserved)} kept free, got ${free}`,
    { fix: 'Free some space or remove images with `podvm image rm`.' },
  );
}
