import { inParts } from '../in-parts.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StreamContainerStatsRequest, StreamContainerStatsResponseSchema } from '../schema/api_pb.ts';
import { matchingContainerStats } from './list-container-stats.ts';

/** Streams the list in parts, for lists larger than one message. */
export async function* streamContainerStats(
  parts: CriParts,
  { filter }: StreamContainerStatsRequest,
  signal: AbortSignal,
): AsyncGenerator<Answer<typeof StreamContainerStatsResponseSchema>> {
  for (const containerStats of inParts(await matchingContainerStats(parts, filter, signal))) yield { containerStats };
}
