import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerStatsOf, statsContextOf } from '../translate/stats.ts';
import type { ContainerStatsRequest, ContainerStatsResponseSchema } from '../schema/api_pb.ts';

/** Returns the statistics of a container. Errors: `notFound`; `failedPrecondition` when its sandbox has ended. */
export async function containerStats(
  parts: CriParts,
  { containerId }: ContainerStatsRequest,
  signal: AbortSignal,
): Promise<Answer<typeof ContainerStatsResponseSchema>> {
  const known = parts.pods.container(containerId);
  const all = await known.pod.sandbox.stats(signal);
  return { stats: containerStatsOf(known, all, statsContextOf(parts)) };
}
