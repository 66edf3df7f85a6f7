import { inParts } from '../in-parts.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponseSchema } from '../schema/api_pb.ts';
import { matchingPodStats } from './list-pod-sandbox-stats.ts';

/** The list in parts, for nodes whose lists outgrow one message. */
export async function* streamPodSandboxStats(
  parts: CriParts,
  { filter }: StreamPodSandboxStatsRequest,
  signal: AbortSignal,
): AsyncGenerator<Answer<typeof StreamPodSandboxStatsResponseSchema>> {
  for (const podSandboxStats of inParts(await matchingPodStats(parts, filter, signal))) yield { podSandboxStats };
}
