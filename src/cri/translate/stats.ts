import type { Clock } from '#host/clock.ts';
import type { ContainerStats, SandboxStats, SpaceStats } from '#sandbox/figures/sandbox-stats.ts';
import type { KnownContainer, KnownPod } from '../known-pods.ts';
import type { Answer } from '../rpc/service.ts';
import type {
  ContainerStatsSchema,
  CpuUsageSchema,
  FilesystemUsageSchema,
  MemoryUsageSchema,
  NetworkInterfaceUsageSchema,
  NetworkUsageSchema,
  PodSandboxStatsSchema,
  SwapUsageSchema,
} from '../schema/api_pb.ts';
import { uint64Of } from './int64.ts';

/** Measurements of one cgroup in the guest. */
type Figures = Omit<ContainerStats, 'id' | 'name' | 'oomKills' | 'layer'>;

function cpuOf({ cpuUsec }: Figures, timestamp: bigint) {
  return { timestamp, usageCoreNanoSeconds: uint64Of(cpuUsec * 1000) } satisfies Answer<typeof CpuUsageSchema>;
}

/**
 * Returns memory usage. The working set excludes what can be released at once; a kubelet compares it with limits, as
 * cAdvisor defines it.
 */
function memoryOf(figures: Figures, timestamp: bigint) {
  const { memoryBytes, inactiveFileBytes, memoryLimitBytes, rssBytes, pageFaults, majorPageFaults } = figures;
  const workingSetBytes = Math.max(0, memoryBytes - inactiveFileBytes);
  return {
    timestamp,
    workingSetBytes: uint64Of(workingSetBytes),
    usageBytes: uint64Of(memoryBytes),
    rssBytes: uint64Of(rssBytes),
    pageFaults: uint64Of(pageFaults),
    majorPageFaults: uint64Of(majorPageFaults),
    ...(memoryLimitBytes === undefined ? {} : { availableBytes: uint64Of(memoryLimitBytes - workingSetBytes) }),
  } satisfies Answer<typeof MemoryUsageSchema>;
}

/** Returns swap usage; a guest has no swap available. */
function swapOf({ swapBytes }: Figures, timestamp: bigint) {
  return {
    timestamp,
    swapAvailableBytes: uint64Of(0),
    swapUsageBytes: uint64Of(swapBytes),
  } satisfies Answer<typeof SwapUsageSchema>;
}

/** Returns network usage. The default interface is the first, eth0: the kernel lists the oldest first. */
function networkOf(all: SandboxStats['interfaces'], timestamp: bigint) {
  const [first, ...others] = all.map(
    ({ name, rxBytes, rxErrors, txBytes, txErrors }) =>
      ({
        name,
        rxBytes: uint64Of(rxBytes),
        rxErrors: uint64Of(rxErrors),
        txBytes: uint64Of(txBytes),
        txErrors: uint64Of(txErrors),
      }) satisfies Answer<typeof NetworkInterfaceUsageSchema>,
  );
  if (first === undefined) return {};
  const network = { timestamp, defaultInterface: first, interfaces: others };
  return { network: network satisfies Answer<typeof NetworkUsageSchema> };
}

interface StatsSource {
  readonly clock: Clock;
  readonly node: { readonly imagesDirectory: string };
}

/** Time of the measurements, and the kubelet's name of the file system that containers write to. */
export interface StatsContext {
  readonly timestamp: bigint;
  readonly mountpoint: string;
}

export function statsContextOf({ clock, node }: StatsSource): StatsContext {
  return { timestamp: BigInt(clock.now()) * 1_000_000n, mountpoint: node.imagesDirectory };
}

function writableLayerOf({ bytes, inodes }: SpaceStats, { timestamp, mountpoint }: StatsContext) {
  return {
    timestamp,
    fsId: { mountpoint },
    usedBytes: uint64Of(bytes),
    inodesUsed: uint64Of(inodes),
  } satisfies Answer<typeof FilesystemUsageSchema>;
}

/** Returns the statistics. An ended container has attributes but no measurements, as in containerd. */
export function containerStatsOf(known: KnownContainer, all: SandboxStats | undefined, context: StatsContext) {
  const { timestamp } = context;
  const { id } = known.container.status;
  const { metadata, labels, annotations } = known.config;
  const figures: ContainerStats | undefined = all?.containers.find((each) => each.id === id);
  return {
    attributes: { id, ...(metadata === undefined ? {} : { metadata }), labels, annotations },
    ...(figures === undefined
      ? {}
      : { cpu: cpuOf(figures, timestamp), memory: memoryOf(figures, timestamp), swap: swapOf(figures, timestamp) }),
    ...(figures?.layer === undefined ? {} : { writableLayer: writableLayerOf(figures.layer, context) }),
  } satisfies Answer<typeof ContainerStatsSchema>;
}

export function podStatsOf(pod: KnownPod, all: SandboxStats, context: StatsContext) {
  const { timestamp } = context;
  const { metadata, labels, annotations } = pod.config;
  return {
    attributes: { id: pod.sandbox.id, ...(metadata === undefined ? {} : { metadata }), labels, annotations },
    linux: {
      cpu: cpuOf(all, timestamp),
      memory: memoryOf(all, timestamp),
      ...networkOf(all.interfaces, timestamp),
      process: { timestamp, processCount: uint64Of(all.pids) },
      containers: [...pod.containers.values()].map((known) => containerStatsOf(known, all, context)),
    },
  } satisfies Answer<typeof PodSandboxStatsSchema>;
}
