import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { diskBytes } from '#image/disk-bytes.ts';
import { uint64Of } from '../translate/int64.ts';
import type { ImageFsInfoResponseSchema } from '../schema/api_pb.ts';

/**
 * Returns the space that images use. Containers write to the same file system, for which kubelets expect a single name,
 * so both lists are equal, as containerd's are.
 */
export async function imageFsInfo({
  images,
  node,
  clock,
}: CriParts): Promise<Answer<typeof ImageFsInfoResponseSchema>> {
  const all = images.list();
  const usage = {
    timestamp: BigInt(clock.now()) * 1_000_000n,
    fsId: { mountpoint: node.imagesDirectory },
    usedBytes: uint64Of(diskBytes(all)),
    inodesUsed: uint64Of(all.length),
  };
  return { imageFilesystems: [usage], containerFilesystems: [usage] };
}
