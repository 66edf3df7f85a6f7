import { inParts } from '../in-parts.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import type { StreamPodSandboxMetricsRequest, StreamPodSandboxMetricsResponseSchema } from '../schema/api_pb.ts';
import { allPodMetrics } from './list-pod-sandbox-metrics.ts';

/** Streams the list in parts, for lists larger than one message. */
export async function* streamPodSandboxMetrics(
  parts: CriParts,
  _request: StreamPodSandboxMetricsRequest,
  signal: AbortSignal,
): AsyncGenerator<Answer<typeof StreamPodSandboxMetricsResponseSchema>> {
  for (const podSandboxMetrics of inParts(await allPodMetrics(parts, signal))) yield { podSandboxMetrics };
}
