import { type GuestSubject, type MetricRow, rowsOf, secondsOfMs, secondsOfUsec } from './metric-row.ts';

const { counter, each, gauge } = rowsOf<GuestSubject>();

const faults = ({ figures: { pageFaults, majorPageFaults } }: GuestSubject) =>
  // cAdvisor reports a cgroup with and without its children; cgroups version 2 has only the former.
  ['container', 'hierarchy'].flatMap((scope) => [
    { labels: ['pgfault', scope], value: pageFaults },
    { labels: ['pgmajfault', scope], value: majorPageFaults },
  ]);

const pressureOf = (resource: 'cpu' | 'memory' | 'io', kind: 'someUsec' | 'fullUsec') => {
  return ({ figures: { pressure } }: GuestSubject) =>
    pressure === undefined ? undefined : secondsOfUsec(pressure[resource][kind]);
};

/** cAdvisor's metrics of processor, memory and processes, and of a container's limits for them. */
export const cgroupMetrics = {
  container_last_seen: gauge('secondsSince1970', 'Time at which the figures were taken', ({ nowMs }) =>
    secondsOfMs(nowMs),
  ),
  container_start_time_seconds: gauge('secondsSince1970', 'Time at which it started', ({ startedAt }) =>
    startedAt === undefined ? undefined : secondsOfMs(startedAt.getTime()),
  ),

  container_cpu_usage_seconds_total: counter('seconds', 'Processor time used', ({ figures }) =>
    secondsOfUsec(figures.cpuUsec),
  ),
  container_cpu_user_seconds_total: counter('seconds', 'Processor time used in user mode', ({ figures }) =>
    secondsOfUsec(figures.cpuUserUsec),
  ),
  container_cpu_system_seconds_total: counter('seconds', 'Processor time used in kernel mode', ({ figures }) =>
    secondsOfUsec(figures.cpuSystemUsec),
  ),
  container_cpu_cfs_periods_total: counter(
    'count',
    'Periods of the CPU limit in which something ran',
    ({ figures }) => figures.cpuPeriods,
  ),
  container_cpu_cfs_throttled_periods_total: counter(
    'count',
    'Periods in which the CPU limit throttled it',
    ({ figures }) => figures.cpuThrottledPeriods,
  ),
  container_cpu_cfs_throttled_seconds_total: counter(
    'seconds',
    'Time for which the CPU limit throttled it',
    ({ figures }) => secondsOfUsec(figures.cpuThrottledUsec),
  ),

  container_memory_usage_bytes: gauge(
    'bytes',
    'Memory in use, page cache included',
    ({ figures }) => figures.memoryBytes,
  ),
  container_memory_max_usage_bytes: gauge(
    'bytes',
    'Highest memory use so far',
    ({ figures }) => figures.memoryPeakBytes,
  ),
  container_memory_working_set_bytes: gauge('bytes', 'Memory in use without inactive page cache', ({ figures }) =>
    Math.max(0, figures.memoryBytes - figures.inactiveFileBytes),
  ),
  container_memory_rss: gauge('bytes', 'Anonymous memory', ({ figures }) => figures.rssBytes),
  container_memory_cache: gauge('bytes', 'Page cache', ({ figures }) => figures.cacheBytes),
  container_memory_mapped_file: gauge('bytes', 'Files mapped into memory', ({ figures }) => figures.mappedFileBytes),
  container_memory_total_active_file_bytes: gauge(
    'bytes',
    'Active page cache',
    ({ figures }) => figures.activeFileBytes,
  ),
  container_memory_total_inactive_file_bytes: gauge(
    'bytes',
    'Inactive page cache',
    ({ figures }) => figures.inactiveFileBytes,
  ),
  container_memory_kernel_usage: gauge('bytes', 'Kernel memory', ({ figures }) => figures.kernelBytes),
  container_memory_swap: gauge('bytes', 'Swap in use', ({ figures }) => figures.swapBytes),
  container_memory_failcnt: counter(
    'count',
    'Times it reached its memory limit',
    ({ figures }) => figures.memoryLimitHits,
  ),
  container_memory_failures_total: each(
    'counter',
    ['failure_type', 'scope'],
    'count',
    'Page faults: all (`pgfault`), and those that read from a disk (`pgmajfault`)',
    faults,
  ),
  container_oom_events_total: counter(
    'count',
    'Processes killed because memory ran out',
    ({ figures }) => figures.oomKills,
  ),

  container_processes: gauge('count', 'Processes', ({ figures }) => figures.processes?.processes),
  container_threads: gauge('count', 'Threads', ({ figures }) => figures.pids),
  container_threads_max: gauge(
    'count',
    'Limit on threads; 0 if there is none',
    ({ figures }) => figures.pidsLimit ?? 0,
  ),
  container_file_descriptors: gauge('count', 'Open file descriptors', ({ figures }) => figures.processes?.descriptors),
  container_sockets: gauge('count', 'Open sockets', ({ figures }) => figures.processes?.sockets),
  container_tasks_state: each('gauge', ['state'], 'count', 'Processes by state', ({ figures: { processes } }) =>
    Object.entries(processes?.states ?? {}).map(([state, value]) => ({ labels: [state], value })),
  ),
  container_ulimits_soft: each(
    'gauge',
    ['ulimit'],
    'count',
    'Soft limits (`ulimit`) of the first process',
    ({ figures }) => figures.ulimits.map(({ name, soft }) => ({ labels: [name], value: soft })),
  ),

  container_pressure_cpu_waiting_seconds_total: counter(
    'seconds',
    'Time in which at least one task waited for a processor',
    pressureOf('cpu', 'someUsec'),
  ),
  container_pressure_cpu_stalled_seconds_total: counter(
    'seconds',
    'Time in which all tasks waited for a processor',
    pressureOf('cpu', 'fullUsec'),
  ),
  container_pressure_memory_waiting_seconds_total: counter(
    'seconds',
    'Time in which at least one task waited for memory',
    pressureOf('memory', 'someUsec'),
  ),
  container_pressure_memory_stalled_seconds_total: counter(
    'seconds',
    'Time in which all tasks waited for memory',
    pressureOf('memory', 'fullUsec'),
  ),
  container_pressure_io_waiting_seconds_total: counter(
    'seconds',
    'Time in which at least one task waited for a disk',
    pressureOf('io', 'someUsec'),
  ),
  container_pressure_io_stalled_seconds_total: counter(
    'seconds',
    'Time in which all tasks waited for a disk',
    pressureOf('io', 'fullUsec'),
  ),

  container_spec_cpu_period: gauge('microseconds', 'Period of the CPU limit', ({ resources }) => resources?.cpuPeriod),
  container_spec_cpu_quota: gauge(
    'microseconds',
    'Processor time that the CPU limit allows in each period',
    ({ resources }) => (resources === undefined || resources.cpuQuota < 0 ? undefined : resources.cpuQuota),
  ),
  container_spec_cpu_shares: gauge(
    'count',
    'Weight by which busy processors are shared',
    ({ resources }) => resources?.cpuShares,
  ),
  container_spec_memory_limit_bytes: gauge(
    'bytes',
    'Memory limit; 0 if there is none',
    ({ figures }) => figures.memoryLimitBytes ?? 0,
  ),
  container_spec_memory_swap_limit_bytes: gauge('bytes', 'Swap limit; always 0, as a guest has no swap', () => 0),
  container_spec_memory_reservation_limit_bytes: gauge('bytes', 'Memory reserved for it; always 0', () => 0),
} as const satisfies Record<string, MetricRow>;
