import { inParts } from '../in-parts.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponseSchema } from '../schema/api_pb.ts';
import { matchingPodStats } from './list-pod-sandbox-stats.ts';

/** Streams the list in parts, for lists larger than one message. */
export async function* streamPodSandboxStats(
  parts: CriParts,
  { filter }: StreamPodSandboxStatsRequest,
  signal: AbortSignal,
): AsyncGenerator<Answer<typeof StreamPodSandboxStatsResponseSchema>> {
  for (const podSandboxStats of inParts(await matchingPodStats(parts, filter, signal))) yield { podSandboxStats };
}
