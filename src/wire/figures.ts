import * as v from 'valibot';
import { limits } from './limits.ts';

/**
 * What the agent measures: figures of cgroups, processes, disks and interfaces, as the guest's kernel has them. Counters
 * go up from the start of the guest, or of the container. Names in them become labels of metrics, and whoever scrapes
 * metrics refuses all of them for two of the same labels: so no name comes twice, and none has more than plain letters.
 */
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** No two of them with the same key. */
function distinct<T extends v.ObjectEntries, M extends undefined>(
  item: v.ObjectSchema<T, M>,
  max: number,
  keyOf: (each: v.InferOutput<v.ObjectSchema<T, M>>) => string,
) {
  return v.pipe(
    v.array(item),
    v.maxLength(max),
    v.check((items) => new Set(items.map(keyOf)).size === items.length, 'the same one twice'),
  );
}

/** What a directory of a scratch disk, or a tmpfs, has in it. */
export const spaceFigures = v.object({ bytes: count, inodes: count });

export const cgroupFigures = v.object({
  memoryBytes: count,
  memoryPeakBytes: count,
  /** Memory of processes that no file stands behind. */
  rssBytes: count,
  /** Page cache that the kernel would give back first. */
  inactiveFileBytes: count,
  pageFaults: count,
  /** Those among them that waited for a disk. */
  majorPageFaults: count,
  swapBytes: count,
  /** Absent: no limit. */
  memoryLimitBytes: v.optional(count),
  /** Processes killed for lack of memory. */
  oomKills: count,
  cpuUsec: count,
  /** Tasks: every thread counts. */
  pids: count,
});

const interfaceCounters = v.object({
  name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.-]{1,15}$/)),
  rxBytes: count,
  rxPackets: count,
  rxErrors: count,
  rxDropped: count,
  txBytes: count,
  txPackets: count,
  txErrors: count,
  txDropped: count,
});
export type InterfaceCounters = v.InferOutput<typeof interfaceCounters>;

/** Of the pod's network, the first ones, without loopback. */
export const interfaceFigures = distinct(interfaceCounters, limits.maxInterfaces, ({ name }) => name);

/** The kernel's name: `sda`. */
const deviceName = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9]{0,31}$/));

/** What a disk as a whole has done since the guest started, whoever asked for it (Documentation/block/stat.rst). */
const diskFigures = v.object({
  mergedReads: count,
  readMs: count,
  mergedWrites: count,
  writeMs: count,
  /** Requests under way. */
  inFlight: count,
  busyMs: count,
  /** Time of all requests added up. */
  queueMs: count,
});

/** What a cgroup has had read and written of a disk; what is still in the page cache is not. */
const deviceFigures = v.object({
  major: count,
  minor: count,
  name: deviceName,
  readBytes: count,
  reads: count,
  writtenBytes: count,
  writes: count,
  discardedBytes: count,
  /** The pod's alone. */
  disk: v.optional(diskFigures),
});
export type DeviceFigures = v.InferOutput<typeof deviceFigures>;

/** Time in `us` that some, or all, of the tasks have waited for it (Documentation/accounting/psi.rst). */
const pressure = v.object({ someUsec: count, fullUsec: count });

const processFigures = v.object({
  processes: count,
  /** By the state of their first threads. */
  states: v.object({ running: count, sleeping: count, stopped: count, uninterruptible: count }),
  descriptors: count,
  /** Absent: more descriptors than are looked at. */
  sockets: v.optional(count),
});
export type ProcessFigures = v.InferOutput<typeof processFigures>;

const ulimitNames = [
  'max_cpu_time',
  'max_file_size',
  'max_data_size',
  'max_stack_size',
  'max_core_file_size',
  'max_resident_set',
  'max_processes',
  'max_open_files',
  'max_locked_memory',
  'max_address_space',
  'max_file_locks',
  'max_pending_signals',
  'max_msgqueue_size',
  'max_nice_priority',
  'max_realtime_priority',
  'max_realtime_timeout',
] as const;
/** The kernel's words in /proc/<pid>/limits, with underscores. */
export type UlimitName = (typeof ulimitNames)[number];
export const isUlimitName = (name: string): name is UlimitName => (ulimitNames as readonly string[]).includes(name);

const ulimit = v.object({ name: v.picklist(ulimitNames), soft: count });

/** All there is to know of one container, or of the pod as a whole. */
export const metrics = v.object({
  ...cgroupFigures.entries,
  cpuUserUsec: count,
  cpuSystemUsec: count,
  /** Periods of its CPU limit, those among them in which it was held back, and for how long. */
  cpuPeriods: count,
  cpuThrottledPeriods: count,
  cpuThrottledUsec: count,
  cacheBytes: count,
  mappedFileBytes: count,
  activeFileBytes: count,
  kernelBytes: count,
  /** Times it came to its memory limit. */
  memoryLimitHits: count,
  /** Absent: no limit. */
  pidsLimit: v.optional(count),
  /** Absent where the kernel counts none. */
  pressure: v.optional(v.object({ cpu: pressure, memory: pressure, io: pressure })),
  devices: distinct(deviceFigures, limits.maxDisks, (each) => each.name),
  /** The pod's alone. */
  interfaces: v.optional(interfaceFigures, []),
  /** Of a container; absent: more than are looked at. */
  processes: v.optional(processFigures),
  /** Soft limits of a container's first process; one that is unlimited is left out. */
  ulimits: v.optional(
    distinct(ulimit, ulimitNames.length, ({ name }) => name),
    [],
  ),
  /** The file system that a container writes to, if its layer is on a disk. */
  layer: v.optional(
    v.object({
      ...spaceFigures.entries,
      device: deviceName,
      limitBytes: count,
      totalInodes: count,
      freeInodes: count,
    }),
  ),
});
export type MetricFigures = v.InferOutput<typeof metrics>;
