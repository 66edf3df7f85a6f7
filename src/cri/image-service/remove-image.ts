import { kindOf, PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { RemoveImageRequest, RemoveImageResponseSchema } from '../schema/api_pb.ts';

/**
 * Removes an image, found by any of its names, with all of them. A missing one is not an error. Errors: `invalid`,
 * `busy`.
 */
export async function removeImage(
  { images }: CriParts,
  { image }: RemoveImageRequest,
): Promise<Answer<typeof RemoveImageResponseSchema>> {
  if (image === undefined || image.image === '') {
    throw new PodvmError('invalid', 'Cannot remove an image: the request has no image reference');
  }
  try {
    await images.remove(image.image);
  } catch (error) {
    if (kindOf(error) !== 'notFound') throw error;
  }
  return {};
}
