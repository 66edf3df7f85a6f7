import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { imageOf } from '../translate/image.ts';
import type { ImageStatusRequest, ImageStatusResponseSchema } from '../schema/api_pb.ts';

/**
 * Returns an empty response for a missing image, and for a damaged one that came from a registry: a kubelet then pulls
 * it again, with its credentials. Errors: `invalid` for an invalid reference.
 */
export async function imageStatus(
  { images }: CriParts,
  { image, verbose }: ImageStatusRequest,
): Promise<Answer<typeof ImageStatusResponseSchema>> {
  if (image === undefined || image.image === '') {
    throw new PodvmError('invalid', 'Cannot look up an image: the request has no image reference');
  }
  const found = images.get(image.image);
  if (found === undefined || (found.damaged !== undefined && found.digests.length > 0)) return {};
  return {
    image: imageOf(found),
    info: verbose ? { info: JSON.stringify({ imageSpec: { config: found.config } }) } : {},
  };
}
