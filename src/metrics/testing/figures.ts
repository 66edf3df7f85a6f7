import type { MetricFigures } from '#sandbox/figures/sandbox-stats.ts';

const disk = { mergedReads: 1, readMs: 2999, mergedWrites: 3, writeMs: 4, inFlight: 5, busyMs: 6, queueMs: 7 };

/** A guest's figures of a pod; a container's are the same, with a layer. */
export const podFigures: MetricFigures = {
  memoryBytes: 4096,
  memoryPeakBytes: 8192,
  rssBytes: 2000,
  inactiveFileBytes: 1096,
  pageFaults: 70,
  majorPageFaults: 7,
  swapBytes: 0,
  oomKills: 0,
  cpuUsec: 1_500_000,
  pids: 3,
  cpuUserUsec: 1_000_000,
  cpuSystemUsec: 500_000,
  cpuPeriods: 9,
  cpuThrottledPeriods: 4,
  cpuThrottledUsec: 1_000_000,
  cacheBytes: 1,
  mappedFileBytes: 2,
  activeFileBytes: 3,
  kernelBytes: 4,
  memoryLimitHits: 5,
  pressure: {
    cpu: { someUsec: 1e6, fullUsec: 0 },
    memory: { someUsec: 0, fullUsec: 0 },
    io: { someUsec: 2e6, fullUsec: 1e6 },
  },
  devices: [
    {
      ...{ major: 8, minor: 0, name: 'sda', readBytes: 1024, reads: 1, writtenBytes: 2048, writes: 2 },
      discardedBytes: 0,
      disk,
    },
  ],
  interfaces: [
    {
      ...{ name: 'eth0', rxBytes: 1, rxPackets: 2, rxErrors: 3, rxDropped: 4 },
      ...{ txBytes: 5, txPackets: 6, txErrors: 7, txDropped: 8 },
    },
  ],
  ulimits: [{ name: 'max_open_files', soft: 1024 }],
};
