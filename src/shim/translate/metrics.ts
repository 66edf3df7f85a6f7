import { create, toBinary } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import type { ContainerStats, SandboxStats } from '#sandbox/figures/sandbox-stats.ts';
import { MetricsSchema } from '../schema/generated/cgroup2/metrics_pb.ts';

/** Figures of one cgroup in the guest. */
export type Figures = Omit<ContainerStats, 'id' | 'name' | 'oomKills' | 'layer'> &
  Partial<Pick<ContainerStats, 'oomKills'>>;

export const podFiguresOf = (stats: SandboxStats): Figures => stats;

/** Converts the figures to those of cgroup v2, the version of every guest; containerd reads both versions. */
export function metricsOf(figures: Figures): Pick<Any, 'typeUrl' | 'value'> {
  const number = (value: number) => BigInt(Math.max(0, Math.trunc(value)));
  const message = create(MetricsSchema, {
    pids: { current: number(figures.pids) },
    cpu: { usageUsec: number(figures.cpuUsec) },
    memory: {
      usage: number(figures.memoryBytes),
      ...(figures.memoryLimitBytes === undefined ? {} : { usageLimit: number(figures.memoryLimitBytes) }),
      anon: number(figures.rssBytes),
      inactiveFile: number(figures.inactiveFileBytes),
      pgfault: number(figures.pageFaults),
      pgmajfault: number(figures.majorPageFaults),
      swapUsage: number(figures.swapBytes),
    },
    memoryEvents: { oomKill: number(figures.oomKills ?? 0) },
  });
  return { typeUrl: MetricsSchema.typeName, value: toBinary(MetricsSchema, message) };
}
