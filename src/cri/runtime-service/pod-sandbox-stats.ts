import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { podStatsOf } from '../translate/stats.ts';
import type { PodSandboxStatsRequest, PodSandboxStatsResponseSchema } from '../schema/api_pb.ts';

/** Errors: `notFound`; `failedPrecondition` when it has ended. */
export async function podSandboxStats(
  { pods, clock }: CriParts,
  { podSandboxId }: PodSandboxStatsRequest,
  signal: AbortSignal,
): Promise<Answer<typeof PodSandboxStatsResponseSchema>> {
  const pod = pods.pod(podSandboxId);
  const all = await pod.sandbox.stats(signal);
  return { stats: podStatsOf(pod, all, BigInt(clock.now()) * 1_000_000n) };
}
