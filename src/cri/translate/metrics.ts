import type { ContainerStats, SandboxStats } from '#sandbox/sandbox.ts';
import type { KnownContainer, KnownPod } from '../known-pods.ts';
import type { Answer } from '../rpc/service.ts';
import {
  type MetricDescriptorSchema,
  type MetricSchema,
  MetricType,
  type PodSandboxMetricsSchema,
} from '../schema/api_pb.ts';

/** What is known of one container, or of a pod as a whole. */
interface Subject {
  readonly figures: Omit<ContainerStats, 'id' | 'name' | 'oomKills'> & { readonly oomKills?: number };
  readonly nowMs: number;
  readonly startedAt: Date | undefined;
  readonly resources: KnownContainer['resources'];
}

interface MetricRow {
  readonly help: string;
  readonly type: MetricType;
  /** Whole units, as CRI has no others. Undefined: not of this subject. */
  readonly of: (subject: Subject) => number | bigint | undefined;
}

/** The labels that a kubelet puts on cAdvisor's metrics. */
const labelKeys = ['container', 'id', 'image', 'name', 'namespace', 'pod'];

/** cAdvisor's names, for what the guest tells. Its others (file systems, network, block I/O) are not measured yet. */
export const metrics = {
  container_cpu_usage_seconds_total: {
    help: 'Cumulative cpu time consumed in seconds.',
    type: MetricType.COUNTER,
    of: ({ figures }) => Math.floor(figures.cpuUsec / 1_000_000),
  },
  container_memory_usage_bytes: {
    help: 'Current memory usage in bytes, including all memory regardless of when it was accessed.',
    type: MetricType.GAUGE,
    of: ({ figures }) => figures.memoryBytes,
  },
  container_memory_working_set_bytes: {
    help: 'Current working set in bytes.',
    type: MetricType.GAUGE,
    of: ({ figures }) => Math.max(0, figures.memoryBytes - figures.inactiveFileBytes),
  },
  container_oom_events_total: {
    help: 'Count of out of memory events observed for the container.',
    type: MetricType.COUNTER,
    of: ({ figures }) => figures.oomKills,
  },
  container_threads: {
    help: 'Number of threads running inside the container.',
    type: MetricType.GAUGE,
    of: ({ figures }) => figures.pids,
  },
  container_last_seen: {
    help: 'Last time a container was seen by the exporter.',
    type: MetricType.GAUGE,
    of: ({ nowMs }) => Math.floor(nowMs / 1000),
  },
  container_start_time_seconds: {
    help: 'Start time of the container since unix epoch in seconds.',
    type: MetricType.GAUGE,
    of: ({ startedAt }) => (startedAt === undefined ? undefined : Math.floor(startedAt.getTime() / 1000)),
  },
  container_spec_memory_limit_bytes: {
    help: 'Memory limit for the container.',
    type: MetricType.GAUGE,
    of: ({ figures }) => figures.memoryLimitBytes ?? 0,
  },
  container_spec_cpu_period: {
    help: 'CPU period of the container.',
    type: MetricType.GAUGE,
    of: ({ resources }) => resources?.cpuPeriod,
  },
  container_spec_cpu_quota: {
    help: 'CPU quota of the container.',
    type: MetricType.GAUGE,
    of: ({ resources }) => (resources === undefined || resources.cpuQuota < 0n ? undefined : resources.cpuQuota),
  },
  container_spec_cpu_shares: {
    help: 'CPU share of the container.',
    type: MetricType.GAUGE,
    of: ({ resources }) => resources?.cpuShares,
  },
} as const satisfies Record<string, MetricRow>;

export function metricDescriptors() {
  return Object.entries(metrics).map(
    ([name, { help }]) => ({ name, help, labelKeys }) satisfies Answer<typeof MetricDescriptorSchema>,
  );
}

/** Of a pod (with an empty container label, as cAdvisor) and its containers that run. */
export function podMetricsOf(pod: KnownPod, stats: SandboxStats, nowMs: number) {
  const { id } = pod.sandbox;
  const { createdAt } = pod.sandbox.status;
  const whole = { figures: stats, nowMs, startedAt: createdAt, resources: pod.config.linux?.resources };
  const containerMetrics = [...pod.containers.values()].flatMap((known) => {
    const { id: containerId, startedAt, image } = known.container.status;
    const figures = stats.containers.find((each) => each.id === containerId);
    if (figures === undefined) return [];
    const labels = labelsOf(pod, known.config.metadata?.name ?? '', containerId, image);
    return [{ containerId, metrics: metricsOf({ figures, nowMs, startedAt, resources: known.resources }, labels) }];
  });
  return {
    podSandboxId: id,
    metrics: metricsOf(whole, labelsOf(pod, '', id, '')),
    containerMetrics,
  } satisfies Answer<typeof PodSandboxMetricsSchema>;
}

/** In the order of `labelKeys`. */
function labelsOf({ config }: KnownPod, container: string, id: string, image: string): string[] {
  const { name = '', namespace = '' } = config.metadata ?? {};
  return [container, id, image, container === '' ? '' : id, namespace, name];
}

function metricsOf(subject: Subject, labelValues: string[]) {
  const timestamp = BigInt(subject.nowMs) * 1_000_000n;
  const rows: [string, MetricRow][] = Object.entries(metrics);
  return rows.flatMap(([name, { type, of }]) => {
    const value = of(subject);
    if (value === undefined) return [];
    const metric = { name, timestamp, metricType: type, labelValues, value: { value: BigInt(value) } };
    return [metric satisfies Answer<typeof MetricSchema>];
  });
}
