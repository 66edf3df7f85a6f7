import type { InterfaceCounters, MetricFigures } from '#wire/figures.ts';

export type { MetricFigures };

/** Space on the scratch disk, as the guest's kernel counts it. */
export interface SpaceStats {
  readonly bytes: number;
  readonly inodes: number;
}

export interface ContainerStats {
  readonly id: string;
  readonly name: string;
  readonly memoryBytes: number;
  /** Part that is memory of processes, not backed by a file. */
  readonly rssBytes: number;
  /** Part that is page cache which the kernel would reclaim first. */
  readonly inactiveFileBytes: number;
  readonly pageFaults: number;
  /** Page faults that waited for a disk. */
  readonly majorPageFaults: number;
  readonly swapBytes: number;
  readonly memoryLimitBytes?: number;
  readonly cpuUsec: number;
  readonly pids: number;
  /** Processes killed for lack of memory. */
  readonly oomKills: number;
  /** Bytes that it has written outside of its volumes. */
  readonly layer?: SpaceStats;
}

export interface SandboxStats {
  readonly agentRssKiB: number;
  readonly agentFds: number;
  /** Memory of the pod's cgroup in the guest. */
  readonly memoryBytes: number;
  readonly rssBytes: number;
  readonly inactiveFileBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
  readonly swapBytes: number;
  readonly memoryLimitBytes?: number;
  readonly cpuUsec: number;
  readonly pids: number;
  readonly containers: readonly ContainerStats[];
  /** Interfaces of the pod's network, without loopback. */
  readonly interfaces: readonly InterfaceCounters[];
  /** Volumes on the scratch disk. */
  readonly volumes: readonly (SpaceStats & { readonly name: string })[];
}

/** All figures of a guest, as its kernel counts them, in the terms of the wire; and one that the host counts. */
export interface SandboxMetrics {
  readonly pod: MetricFigures;
  /** Running containers. */
  readonly containers: readonly (MetricFigures & { readonly id: string })[];
  /** Packets of the pod that the host has dropped, by reason; see `Network.dropped`. */
  readonly dropped: ReadonlyMap<string, number>;
}
