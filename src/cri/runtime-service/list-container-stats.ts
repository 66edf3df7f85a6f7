import { statsOfAll } from '../measure.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerStatsOf, statsContextOf } from '../translate/stats.ts';
import {
  ContainerState,
  type ContainerStatsFilter,
  type ListContainerStatsRequest,
  type ListContainerStatsResponseSchema,
} from '../schema/api_pb.ts';
import { containerStateOf } from '../translate/container-status.ts';
import { selectContainers } from './list-containers.ts';

export async function listContainerStats(
  parts: CriParts,
  { filter }: ListContainerStatsRequest,
  signal: AbortSignal,
): Promise<Answer<typeof ListContainerStatsResponseSchema>> {
  return { stats: await matchingContainerStats(parts, filter, signal) };
}

/** Returns the statistics of running containers. */
export async function matchingContainerStats(
  parts: CriParts,
  filter: ContainerStatsFilter | undefined,
  signal: AbortSignal,
) {
  const running = selectContainers(parts, filter ?? {}).filter(
    (known) => containerStateOf(known, known.container.status) === ContainerState.CONTAINER_RUNNING,
  );
  const measured = await statsOfAll(
    parts,
    running.map(({ pod }) => pod),
    signal,
  );
  const context = statsContextOf(parts);
  return running.map((known) => containerStatsOf(known, measured.get(known.pod), context));
}
