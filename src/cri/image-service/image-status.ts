import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { imageOf } from '../translate/image.ts';
import type { ImageStatusRequest, ImageStatusResponseSchema } from '../schema/api_pb.ts';

/**
 * An image that is not here is no error: the answer is empty. So it is for one whose file is damaged and that a registry
 * had, since a kubelet then pulls it again, with its credentials. Errors: `invalid` for what is no reference.
 */
export async function imageStatus(
  { images }: CriParts,
  { image, verbose }: ImageStatusRequest,
): Promise<Answer<typeof ImageStatusResponseSchema>> {
  if (image === undefined || image.image === '') {
    throw new PodvmError('invalid', 'Cannot look up an image: the request names none');
  }
  const found = images.get(image.image);
  if (found === undefined || (found.damaged !== undefined && found.digests.length > 0)) return {};
  return {
    image: imageOf(found),
    info: verbose ? { info: JSON.stringify({ imageSpec: { config: found.config } }) } : {},
  };
}
