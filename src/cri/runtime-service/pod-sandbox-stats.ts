import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { podStatsOf, statsContextOf } from '../translate/stats.ts';
import type { PodSandboxStatsRequest, PodSandboxStatsResponseSchema } from '../schema/api_pb.ts';

/** Returns the statistics of a pod. Errors: `notFound`; `failedPrecondition` when it has ended. */
export async function podSandboxStats(
  parts: CriParts,
  { podSandboxId }: PodSandboxStatsRequest,
  signal: AbortSignal,
): Promise<Answer<typeof PodSandboxStatsResponseSchema>> {
  const pod = parts.pods.pod(podSandboxId);
  const all = await pod.sandbox.stats(signal);
  return { stats: podStatsOf(pod, all, statsContextOf(parts)) };
}
