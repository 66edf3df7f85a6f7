import { inParts } from '../in-parts.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StreamImagesRequest, StreamImagesResponseSchema } from '../schema/api_pb.ts';
import { matchingImages } from './list-images.ts';

/** Streams the list in parts, for lists larger than one message. */
export async function* streamImages(
  parts: CriParts,
  { filter }: StreamImagesRequest,
): AsyncGenerator<Answer<typeof StreamImagesResponseSchema>> {
  for (const images of inParts(matchingImages(parts, filter))) yield { images };
}
