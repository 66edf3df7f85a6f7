import { counter, each, gauge, type MetricRow, secondsOfMs, secondsOfUsec, type Subject } from './metric-row.ts';

const faults = ({ figures: { pageFaults, majorPageFaults } }: Subject) =>
  // cAdvisor tells of a cgroup alone and of it with those below; in the second version of cgroups there is only that.
  ['container', 'hierarchy'].flatMap((scope) => [
    { labels: ['pgfault', scope], value: pageFaults },
    { labels: ['pgmajfault', scope], value: majorPageFaults },
  ]);

const pressureOf = (resource: 'cpu' | 'memory' | 'io', kind: 'someUsec' | 'fullUsec') => {
  return ({ figures: { pressure } }: Subject) =>
    pressure === undefined ? undefined : secondsOfUsec(pressure[resource][kind]);
};

/** cAdvisor's metrics of processor, memory and processes, and of what a container was given of them. */
export const cgroupMetrics = {
  container_last_seen: gauge('When the figures were taken, in seconds since 1970.', ({ nowMs }) => secondsOfMs(nowMs)),
  container_start_time_seconds: gauge('When it was started, in seconds since 1970.', ({ startedAt }) =>
    startedAt === undefined ? undefined : secondsOfMs(startedAt.getTime()),
  ),

  container_cpu_usage_seconds_total: counter('Processor time used, in seconds.', ({ figures }) =>
    secondsOfUsec(figures.cpuUsec),
  ),
  container_cpu_user_seconds_total: counter('Processor time of programs, in seconds.', ({ figures }) =>
    secondsOfUsec(figures.cpuUserUsec),
  ),
  container_cpu_system_seconds_total: counter('Processor time of the kernel for them, in seconds.', ({ figures }) =>
    secondsOfUsec(figures.cpuSystemUsec),
  ),
  container_cpu_cfs_periods_total: counter(
    'Periods of the CPU limit in which there was something to run.',
    ({ figures }) => figures.cpuPeriods,
  ),
  container_cpu_cfs_throttled_periods_total: counter(
    'Periods in which the CPU limit held it back.',
    ({ figures }) => figures.cpuThrottledPeriods,
  ),
  container_cpu_cfs_throttled_seconds_total: counter(
    'Time for which the CPU limit held it back, in seconds.',
    ({ figures }) => secondsOfUsec(figures.cpuThrottledUsec),
  ),

  container_memory_usage_bytes: gauge('Memory in use, page cache and all.', ({ figures }) => figures.memoryBytes),
  container_memory_max_usage_bytes: gauge('The most memory ever in use.', ({ figures }) => figures.memoryPeakBytes),
  container_memory_working_set_bytes: gauge(
    'Memory in use without the page cache that would be given back first.',
    ({ figures }) => Math.max(0, figures.memoryBytes - figures.inactiveFileBytes),
  ),
  container_memory_rss: gauge('Memory that no file stands behind, in bytes.', ({ figures }) => figures.rssBytes),
  container_memory_cache: gauge('Page cache, in bytes.', ({ figures }) => figures.cacheBytes),
  container_memory_mapped_file: gauge('Files mapped into memory, in bytes.', ({ figures }) => figures.mappedFileBytes),
  container_memory_total_active_file_bytes: gauge(
    'Page cache that was used of late.',
    ({ figures }) => figures.activeFileBytes,
  ),
  container_memory_total_inactive_file_bytes: gauge(
    'Page cache that would be given back first.',
    ({ figures }) => figures.inactiveFileBytes,
  ),
  container_memory_kernel_usage: gauge('Memory of the kernel for it, in bytes.', ({ figures }) => figures.kernelBytes),
  container_memory_swap: gauge('Swap in use, in bytes.', ({ figures }) => figures.swapBytes),
  container_memory_failcnt: counter('Times it came to its memory limit.', ({ figures }) => figures.memoryLimitHits),
  container_memory_failures_total: each(
    'COUNTER',
    ['failure_type', 'scope'],
    'Page faults: all (pgfault), and those that waited for a disk (pgmajfault).',
    faults,
  ),
  container_oom_events_total: counter('Processes killed for lack of memory.', ({ figures }) => figures.oomKills),

  container_processes: gauge('Processes.', ({ figures }) => figures.processes?.processes),
  container_threads: gauge('Threads.', ({ figures }) => figures.pids),
  container_threads_max: gauge('Threads that it may have; 0: no limit.', ({ figures }) => figures.pidsLimit ?? 0),
  container_file_descriptors: gauge('Open file descriptors.', ({ figures }) => figures.processes?.descriptors),
  container_sockets: gauge('Open sockets.', ({ figures }) => figures.processes?.sockets),
  container_tasks_state: each('GAUGE', ['state'], 'Processes, by their state.', ({ figures: { processes } }) =>
    Object.entries(processes?.states ?? {}).map(([state, value]) => ({ labels: [state], value })),
  ),
  container_ulimits_soft: each(
    'GAUGE',
    ['ulimit'],
    'Soft limits of the first process, where it has any.',
    ({ figures }) => figures.ulimits.map(({ name, soft }) => ({ labels: [name], value: soft })),
  ),

  container_pressure_cpu_waiting_seconds_total: counter(
    'Time in which some task waited for a processor, in seconds.',
    pressureOf('cpu', 'someUsec'),
  ),
  container_pressure_cpu_stalled_seconds_total: counter(
    'Time in which all tasks waited for a processor, in seconds.',
    pressureOf('cpu', 'fullUsec'),
  ),
  container_pressure_memory_waiting_seconds_total: counter(
    'Time in which some task waited for memory, in seconds.',
    pressureOf('memory', 'someUsec'),
  ),
  container_pressure_memory_stalled_seconds_total: counter(
    'Time in which all tasks waited for memory, in seconds.',
    pressureOf('memory', 'fullUsec'),
  ),
  container_pressure_io_waiting_seconds_total: counter(
    'Time in which some task waited for a disk, in seconds.',
    pressureOf('io', 'someUsec'),
  ),
  container_pressure_io_stalled_seconds_total: counter(
    'Time in which all tasks waited for a disk, in seconds.',
    pressureOf('io', 'fullUsec'),
  ),

  container_spec_cpu_period: gauge(
    'Period of its CPU limit, in microseconds.',
    ({ resources }) => resources?.cpuPeriod,
  ),
  container_spec_cpu_quota: gauge('CPU limit: microseconds of each period.', ({ resources }) =>
    resources === undefined || resources.cpuQuota < 0n ? undefined : resources.cpuQuota,
  ),
  container_spec_cpu_shares: gauge('Its share of busy processors.', ({ resources }) => resources?.cpuShares),
  container_spec_memory_limit_bytes: gauge('Memory limit; 0: none.', ({ figures }) => figures.memoryLimitBytes ?? 0),
  container_spec_memory_swap_limit_bytes: gauge('Swap limit: a guest has no swap.', () => 0),
  container_spec_memory_reservation_limit_bytes: gauge('Memory that is kept for it: none.', () => 0),
} as const satisfies Record<string, MetricRow>;
