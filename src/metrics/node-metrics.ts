import type { HistogramReading } from '#base/histogram.ts';
import type { ImageCounts } from '#image/image-counts.ts';
import type { SandboxCounts } from '#sandbox/figures/node-counts.ts';
import { type MetricRow, rowsOf, secondsOfMs } from './metric-row.ts';
import type { NodeFigures } from './node-figures.ts';

/** Figures of the node and its process. */
export interface NodeSubject {
  readonly version: string;
  /** Number of sandboxes by state; `waiting`: machines of the pool. */
  readonly machines: Readonly<Record<string, number>>;
  readonly sandboxes: SandboxCounts;
  readonly templateMadeAt: Date | undefined;
  /** Room of the file system with the state directory; undefined when it cannot be read. */
  readonly room: DiskRoom | undefined;
  /** Memory that the node keeps. */
  readonly reserveBytes: number;
  readonly images: ImageCounts;
  readonly storedImages: { readonly count: number; readonly bytes: number };
  readonly nowMs: number;
  readonly figures: NodeFigures;
}

export interface DiskRoom {
  readonly bytes: number;
  readonly availableBytes: number;
}

const { counter, gauge, each, histograms } = rowsOf<NodeSubject>();

const byWord = (entries: readonly (readonly [string, number])[]) =>
  entries.map(([word, value]) => ({ labels: [word], value }));

const pressureOf =
  (kind: 'waiting' | 'stalled') =>
  ({ figures: { pressure } }: NodeSubject) =>
    pressure.map(({ resource, ...seconds }) => ({ labels: [resource], value: seconds[kind] }));

/** Metrics of the node and of the process that serves it. Those of the process have the field's names. */
export const nodeMetrics = {
  podvm_build_info: each('gauge', ['version'], 'count', 'Always 1: the version of podvm', ({ version }) => [
    { labels: [version], value: 1 },
  ]),
  podvm_machines: each('gauge', ['state'], 'count', 'Machines by state; those of the pool are `waiting`', (node) =>
    byWord(Object.entries(node.machines)),
  ),
  podvm_pool_hits_total: counter('count', 'Starts that got a waiting machine', ({ sandboxes }) => sandboxes.poolHits),
  podvm_pool_misses_total: counter(
    'count',
    'Starts that suited the pool while no machine waited',
    ({ sandboxes }) => sandboxes.poolMisses,
  ),
  podvm_template_created_timestamp_seconds: gauge(
    'secondsSince1970',
    "Time at which the node's template was made",
    ({ templateMadeAt }) => (templateMadeAt === undefined ? undefined : secondsOfMs(templateMadeAt.getTime())),
  ),
  podvm_start_phase_seconds: histograms(
    ['phase'],
    'seconds',
    'Time of each step of the starts that succeeded; `total` is the whole start',
    ({ sandboxes }) => sandboxes.phases.map(([phase, value]) => ({ labels: [phase], value })),
  ),
  podvm_failed_starts_total: each('counter', ['reason'], 'count', 'Starts that failed, by the kind of error', (node) =>
    byWord(node.sandboxes.failedStarts),
  ),
  podvm_machine_failures_total: counter(
    'count',
    'Machines that failed after their start',
    ({ sandboxes }) => sandboxes.failures,
  ),
  podvm_adoptions_total: each(
    'counter',
    ['outcome'],
    'count',
    'Machines of an earlier process: taken over (`taken`), found ended (`ended`), or only listed, since another podvm made them (`left`)',
    (node) => byWord(node.sandboxes.adoptions),
  ),
  podvm_oom_kills_total: counter(
    'count',
    "Processes that guests' kernels have killed for lack of memory",
    ({ sandboxes }) => sandboxes.outOfMemoryKills,
  ),

  podvm_image_pulls_total: each(
    'counter',
    ['outcome'],
    'count',
    'Pulls that have ended: `ok`, or by the kind of error',
    (node) => byWord(node.images.pulls),
  ),
  podvm_image_pulls_in_progress: gauge('count', 'Pulls in progress', ({ images }) => images.pulling.length),
  podvm_image_oldest_pull_seconds: gauge(
    'seconds',
    'Age of the oldest pull in progress; 0 without one',
    ({ images: { pulling }, nowMs }) => {
      const [oldest] = pulling;
      return oldest === undefined ? 0 : Math.max(0, secondsOfMs(nowMs - oldest.sinceMs));
    },
  ),
  podvm_image_pull_seconds: histograms([], 'seconds', 'Time of the pulls that have ended', ({ images }) => [
    { labels: [], value: images.pullSeconds },
  ]),
  podvm_image_imports_total: counter(
    'count',
    'Root file systems made of images that were pulled, loaded or built',
    ({ images }) => images.imports,
  ),
  podvm_images: gauge('count', 'Stored images', ({ storedImages }) => storedImages.count),
  podvm_images_bytes: gauge('bytes', 'Size of stored images', ({ storedImages }) => storedImages.bytes),

  podvm_node_memory_bytes: gauge('bytes', 'Memory of the node', ({ figures }) => figures.memoryBytes),
  podvm_node_memory_available_bytes: gauge(
    'bytes',
    'Memory of the node that new pods could use without swapping',
    ({ figures }) => figures.availableBytes,
  ),
  podvm_node_memory_reserve_bytes: gauge(
    'bytes',
    'The part of it that the node keeps: pods that would take from it are refused',
    ({ reserveBytes }) => reserveBytes,
  ),
  podvm_node_disk_bytes: gauge(
    'bytes',
    'Size of the file system that has images, disks of pods and logs',
    ({ room }) => room?.bytes,
  ),
  podvm_node_disk_available_bytes: gauge('bytes', 'What is left of it', ({ room }) => room?.availableBytes),
  podvm_node_pressure_waiting_seconds_total: each(
    'counter',
    ['resource'],
    'seconds',
    'Time in which at least one task of the node waited for `cpu`, `memory` or `io`',
    pressureOf('waiting'),
  ),
  podvm_node_pressure_stalled_seconds_total: each(
    'counter',
    ['resource'],
    'seconds',
    'Time in which all tasks of the node waited for it',
    pressureOf('stalled'),
  ),

  process_cpu_seconds_total: counter(
    'seconds',
    'Processor time of the serving process',
    ({ figures }) => figures.cpuSeconds,
  ),
  process_start_time_seconds: gauge(
    'secondsSince1970',
    'Time at which the serving process started',
    ({ figures }) => figures.startedSeconds,
  ),
  process_resident_memory_bytes: gauge(
    'bytes',
    'Resident memory of the serving process',
    ({ figures }) => figures.residentBytes,
  ),
  process_open_fds: gauge(
    'count',
    'Open file descriptors of the serving process',
    ({ figures }) => figures.descriptors,
  ),
  process_max_fds: gauge(
    'count',
    'Limit on file descriptors of the serving process',
    ({ figures }) => figures.maxDescriptors,
  ),
  nodejs_heap_size_used_bytes: gauge('bytes', 'JavaScript heap in use', ({ figures }) => figures.heapUsedBytes),
  nodejs_heap_size_total_bytes: gauge('bytes', 'JavaScript heap', ({ figures }) => figures.heapBytes),
  nodejs_eventloop_lag_seconds: gauge(
    'seconds',
    'Mean delay of the event loop since the last scrape',
    ({ figures }) => figures.loopDelay.meanSeconds,
  ),
  nodejs_eventloop_lag_p99_seconds: gauge(
    'seconds',
    'The 99th percentile of that delay',
    ({ figures }) => figures.loopDelay.p99Seconds,
  ),
  nodejs_eventloop_lag_max_seconds: gauge(
    'seconds',
    'The longest such delay',
    ({ figures }) => figures.loopDelay.maxSeconds,
  ),
} as const satisfies Record<string, MetricRow<NodeSubject> | MetricRow<NodeSubject, HistogramReading>>;
