import { inParts } from '../in-parts.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StreamContainersRequest, StreamContainersResponseSchema } from '../schema/api_pb.ts';
import { matchingContainers } from './list-containers.ts';

/** Streams the list in parts, for lists larger than one message. */
export async function* streamContainers(
  parts: CriParts,
  { filter }: StreamContainersRequest,
): AsyncGenerator<Answer<typeof StreamContainersResponseSchema>> {
  for (const containers of inParts(matchingContainers(parts, filter))) yield { containers };
}
