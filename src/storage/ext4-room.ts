import { open } from 'node:fs/promises';

/** What a new ext4 of ours is divided into, whatever its size; also the size of the guest's pages. */
export const blockBytes = 4096;

/**
 * Bytes that files can take of an ext4 that nobody has mounted yet. The kernel keeps 2 % to itself, of which nobody may
 * take anything, at most 4096 blocks (fs/ext4/super.c, ext4_set_resv_clusters).
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
