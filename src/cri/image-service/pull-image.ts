import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { PullImageRequest, PullImageResponseSchema } from '../schema/api_pb.ts';

/** Pulls the image that the reference names now. Errors: `invalid`, and those of `ImageStore.pull`. */
export async function pullImage(
  { images, credentials }: CriParts,
  { image, auth }: PullImageRequest,
  signal: AbortSignal,
): Promise<Answer<typeof PullImageResponseSchema>> {
  if (image === undefined || image.image === '') {
    throw new PodvmError('invalid', 'Cannot pull an image: the request has no image reference');
  }
  await using file = await credentials.file(image.image, auth);
  const { id } = await images.pull(image.image, file === undefined ? {} : { authFile: file.path }, signal);
  return { imageRef: id };
}
