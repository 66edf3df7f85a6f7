import type { Image } from '#image/images.ts';
import type { Answer } from '../rpc/service.ts';
import type { ImageSchema } from '../schema/api_pb.ts';

export function imageOf({ id, references, digests, sizeBytes, config }: Image) {
  return {
    id,
    repoTags: [...references],
    repoDigests: [...digests],
    size: BigInt(sizeBytes),
    ...userOf(config.user ?? ''),
    pinned: false,
  } satisfies Answer<typeof ImageSchema>;
}

/** Returns the user by number or name, without the group: a kubelet compares it with runAsNonRoot. Empty means root. */
function userOf(user: string): { readonly uid?: { value: bigint }; readonly username?: string } {
  const [name = ''] = user.split(':');
  if (name === '') return {};
  return /^\d{1,10}$/.test(name) ? { uid: { value: BigInt(name) } } : { username: name };
}
