import { statfs } from 'node:fs/promises';

/** Part of a file system that stays free for other uses: 5 %, at most 256 MiB. */
const reservedPart = 0.05;
const maxReservedBytes = 256 * 1024 ** 2;

export interface DiskRoom {
  readonly freeBytes: number;
  readonly reservedBytes: number;
  /** Number of files that can be made; Infinity where the file system does not bound it. */
  readonly freeFiles: number;
  readonly reservedFiles: number;
}

/** Returns what is free on the file system of a directory, and what of it should stay free. */
export async function diskRoom(directory: string): Promise<DiskRoom> {
  const { bavail, blocks, bsize, files, ffree } = await statfs(directory);
  return {
    freeBytes: bavail * bsize,
    reservedBytes: Math.ceil(Math.min(maxReservedBytes, blocks * bsize * reservedPart)),
    freeFiles: files === 0 ? Infinity : ffree,
    reservedFiles: Math.ceil(files * reservedPart),
  };
}
