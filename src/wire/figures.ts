import * as v from 'valibot';
import { count } from './fields.ts';
import { limits } from './limits.ts';

/**
 * The agent's measurements: figures of cgroups, processes, disks and interfaces from the guest's kernel. Counters increase
 * from the start of the guest or the container. Names become labels of metrics, and a scraper refuses all metrics when two
 * have the same labels: so names are unique and consist of plain characters.
 */

/** A list of items with unique keys. */
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

/** Usage of a directory of a scratch disk, or of a tmpfs. */
export const spaceFigures = v.object({ bytes: count, inodes: count });

export const cgroupFigures = v.object({
  memoryBytes: count,
  memoryPeakBytes: count,
  /** Memory of processes that is not backed by a file. */
  rssBytes: count,
  /** Page cache that the kernel would reclaim first. */
  inactiveFileBytes: count,
  pageFaults: count,
  /** Page faults that waited for a disk. */
  majorPageFaults: count,
  swapBytes: count,
  /** Absent: no limit. */
  memoryLimitBytes: v.optional(count),
  /** Processes killed for lack of memory. */
  oomKills: count,
  cpuUsec: count,
  /** Tasks: counts every thread. */
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

/** Interfaces of the pod's network, the first ones, without loopback. */
export const interfaceFigures = distinct(interfaceCounters, limits.maxInterfaces, ({ name }) => name);

/** The kernel's name: `sda`. */
const deviceName = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9]{0,31}$/));

/** Activity of a whole disk since the guest started, by all users (Documentation/block/stat.rst). */
const diskFigures = v.object({
  mergedReads: count,
  readMs: count,
  mergedWrites: count,
  writeMs: count,
  /** Requests in progress. */
  inFlight: count,
  busyMs: count,
  /** Sum of the times of all requests. */
  queueMs: count,
});

/** Traffic of a cgroup with one disk; excludes data that is still only in the page cache. */
const deviceFigures = v.object({
  major: count,
  minor: count,
  name: deviceName,
  readBytes: count,
  reads: count,
  writtenBytes: count,
  writes: count,
  discardedBytes: count,
  /** Only for the pod. */
  disk: v.optional(diskFigures),
});
export type DeviceFigures = v.InferOutput<typeof deviceFigures>;

/** Time in `us` that some, or all, of the tasks have waited for it (Documentation/accounting/psi.rst). */
const pressure = v.object({ someUsec: count, fullUsec: count });

const processFigures = v.object({
  processes: count,
  /** Counts by the state of their first threads. */
  states: v.object({ running: count, sleeping: count, stopped: count, uninterruptible: count }),
  descriptors: count,
  /** Absent: there are more descriptors than the limit. */
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
/** The kernel's names in /proc/<pid>/limits, with underscores. */
export type UlimitName = (typeof ulimitNames)[number];
export const isUlimitName = (name: string): name is UlimitName => (ulimitNames as readonly string[]).includes(name);

const ulimit = v.object({ name: v.picklist(ulimitNames), soft: count });

/** All figures of one container, or of the whole pod. */
export const metrics = v.object({
  ...cgroupFigures.entries,
  cpuUserUsec: count,
  cpuSystemUsec: count,
  /** Periods of the CPU limit, those among them that were throttled, and the throttled time. */
  cpuPeriods: count,
  cpuThrottledPeriods: count,
  cpuThrottledUsec: count,
  cacheBytes: count,
  mappedFileBytes: count,
  activeFileBytes: count,
  kernelBytes: count,
  /** Number of times that the memory limit was reached. */
  memoryLimitHits: count,
  /** Absent: no limit. */
  pidsLimit: v.optional(count),
  /** Absent where the kernel does not measure it. */
  pressure: v.optional(v.object({ cpu: pressure, memory: pressure, io: pressure })),
  devices: distinct(deviceFigures, limits.maxDisks, (each) => each.name),
  /** Only for the pod. */
  interfaces: v.optional(interfaceFigures, []),
  /** Only for a container; absent: there are more processes than the limit. */
  processes: v.optional(processFigures),
  /** Soft limits of a container's first process; unlimited ones are left out. */
  ulimits: v.optional(
    distinct(ulimit, ulimitNames.length, ({ name }) => name),
    [],
  ),
  /** The file system of the container's writable layer, if that is on a disk. */
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
