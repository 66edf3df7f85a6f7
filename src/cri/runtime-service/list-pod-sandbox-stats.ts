import type { KnownPod } from '../known-pods.ts';
import { statsOfAll } from '../measure.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { hasLabels } from '../translate/labels.ts';
import { podStatsOf, statsContextOf } from '../translate/stats.ts';
import type {
  ListPodSandboxStatsRequest,
  ListPodSandboxStatsResponseSchema,
  PodSandboxStatsFilter,
} from '../schema/api_pb.ts';

export async function listPodSandboxStats(
  parts: CriParts,
  { filter }: ListPodSandboxStatsRequest,
  signal: AbortSignal,
): Promise<Answer<typeof ListPodSandboxStatsResponseSchema>> {
  return { stats: await matchingPodStats(parts, filter, signal) };
}

/** Returns the statistics of running pods. */
export async function matchingPodStats(
  parts: CriParts,
  filter: PodSandboxStatsFilter | undefined,
  signal: AbortSignal,
) {
  const { id = '', labelSelector = {} } = filter ?? {};
  const only = id === '' ? undefined : parts.pods.findPod(id);
  const from: Iterable<KnownPod> = id === '' ? parts.pods.pods : only === undefined ? [] : [only];
  const selected = [...from].filter(({ config }) => hasLabels(config.labels, labelSelector));
  const measured = await statsOfAll(parts, selected, signal);
  const context = statsContextOf(parts);
  return [...measured].map(([pod, all]) => podStatsOf(pod, all, context));
}
