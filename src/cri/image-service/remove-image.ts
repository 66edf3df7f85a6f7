import { kindOf, PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { RemoveImageRequest, RemoveImageResponseSchema } from '../schema/api_pb.ts';

/** By any of its names, and with all of them. One that is not here is no error. Errors: `invalid`, `busy`. */
export async function removeImage(
  { images }: CriParts,
  { image }: RemoveImageRequest,
): Promise<Answer<typeof RemoveImageResponseSchema>> {
  if (image === undefined || image.image === '') {
    throw new PodvmError('invalid', 'Cannot remove an image: the request names none');
  }
  try {
    await images.remove(image.image);
  } catch (error) {
    if (kindOf(error) !== 'notFound') throw error;
  }
  return {};
}
