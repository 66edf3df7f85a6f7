import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { imageOf } from '../translate/image.ts';
import type { ImageFilter, ListImagesRequest, ListImagesResponseSchema } from '../schema/api_pb.ts';

export async function listImages(
  parts: CriParts,
  { filter }: ListImagesRequest,
): Promise<Answer<typeof ListImagesResponseSchema>> {
  return { images: matchingImages(parts, filter) };
}

export function matchingImages({ images }: Pick<CriParts, 'images'>, filter: ImageFilter | undefined) {
  const reference = filter?.image?.image ?? '';
  const only = reference === '' ? undefined : images.get(reference);
  const from = reference === '' ? images.list() : only === undefined ? [] : [only];
  return from.map(imageOf);
}
