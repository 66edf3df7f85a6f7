import { open } from 'node:fs/promises';

/** Block size of new ext4 file systems of any size; also the guest's page size. */
export const blockBytes = 4096;

/**
 * Returns the bytes available to files in a new, never mounted ext4. The kernel reserves 2 %, at most 4096 blocks, for
 * its own use (fs/ext4/super.c, ext4_set_resv_clusters).
 */
export async function roomOf(path: string): Promise<number> {
  const superblock = Buffer.alloc(1024);
  await using file = await open(path, 'r');
  await file.read(superblock, 0, superblock.length, 1024);
  // fs/ext4/ext4.h, struct ext4_super_block
  const [low, high] = [4, 0x150].map((at) => superblock.readUInt32LE(at)) as [number, number]; // SAFE: two of two
  const [freeLow, freeHigh] = [12, 0x158].map((at) => superblock.readUInt32LE(at)) as [number, number]; // SAFE: the same
  const [blocks, free] = [high * 2 ** 32 + low, freeHigh * 2 ** 32 + freeLow];
  return (free - Math.min(Math.floor(blocks / 50), 4096)) * blockBytes;
}
