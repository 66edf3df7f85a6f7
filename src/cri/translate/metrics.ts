import type { MetricFigures, SandboxMetrics } from '#sandbox/sandbox-stats.ts';
import type { KnownPod } from '../known-pods.ts';
import type { Answer } from '../rpc/service.ts';
import type { MetricDescriptorSchema, MetricSchema, PodSandboxMetricsSchema } from '../schema/api_pb.ts';
import { cgroupMetrics } from './cgroup-metrics.ts';
import { deviceMetrics } from './device-metrics.ts';
import type { MetricRow, Subject, Unit } from './metric-row.ts';

/** Labels of cAdvisor's metrics in a kubelet. */
export const labelKeys = ['container', 'id', 'image', 'name', 'namespace', 'pod'];

/** By cAdvisor's names, except for what it does not know. `docs/reference/metrics.md` is printed from this table. */
export const metricRows: readonly (readonly [string, MetricRow])[] = Object.entries({
  ...cgroupMetrics,
  ...deviceMetrics,
});

const inUnit = {
  count: '',
  bytes: ', in bytes',
  seconds: ', in seconds',
  secondsSince1970: ', in seconds since 1970',
  microseconds: ', in microseconds',
} as const satisfies Record<Unit, string>;

export function metricDescriptors() {
  return metricRows.map(
    ([name, { unit, about, labels }]) =>
      ({ name, help: `${about}${inUnit[unit]}.`, labelKeys: [...labelKeys, ...labels] }) satisfies Answer<
        typeof MetricDescriptorSchema
      >,
  );
}

/** Returns the metrics of a pod (with an empty container label, as cAdvisor) and of its running containers. */
export function podMetricsOf(pod: KnownPod, measured: SandboxMetrics, nowMs: number) {
  const { id } = pod.sandbox;
  const { createdAt } = pod.sandbox.status;
  const processes = sumOf(measured.containers.map((each) => each.processes));
  const figures = processes === undefined ? measured.pod : { ...measured.pod, processes };
  const { dropped } = measured;
  const whole = { figures, nowMs, startedAt: createdAt, resources: pod.config.linux?.resources, dropped };
  const containerMetrics = [...pod.containers.values()].flatMap((known) => {
    const { id: containerId, startedAt, image } = known.container.status;
    const its = measured.containers.find((each) => each.id === containerId);
    if (its === undefined) return [];
    const labels = labelsOf(pod, known.config.metadata?.name ?? '', containerId, image);
    const subject = { figures: its, nowMs, startedAt, resources: known.resources };
    return [{ containerId, metrics: metricsOf(subject, labels) }];
  });
  return {
    podSandboxId: id,
    metrics: metricsOf(whole, labelsOf(pod, '', id, '')),
    containerMetrics,
  } satisfies Answer<typeof PodSandboxMetricsSchema>;
}

/** Sums the processes of a pod's containers; undefined if one is unknown. */
function sumOf(all: readonly MetricFigures['processes'][]): MetricFigures['processes'] {
  const states = { running: 0, sleeping: 0, stopped: 0, uninterruptible: 0 };
  const sum = { processes: 0, descriptors: 0, states };
  let sockets: number | undefined = 0;
  for (const each of all) {
    if (each === undefined) return undefined;
    sum.processes += each.processes;
    sum.descriptors += each.descriptors;
    states.running += each.states.running;
    states.sleeping += each.states.sleeping;
    states.stopped += each.states.stopped;
    states.uninterruptible += each.states.uninterruptible;
    sockets = sockets === undefined || each.sockets === undefined ? undefined : sockets + each.sockets;
  }
  return sockets === undefined ? sum : { ...sum, sockets };
}

/** Returns label values in the order of `labelKeys`. */
function labelsOf({ config }: KnownPod, container: string, id: string, image: string): string[] {
  const { name = '', namespace = '' } = config.metadata ?? {};
  return [container, id, image, container === '' ? '' : id, namespace, name];
}

function metricsOf(subject: Subject, labelValues: readonly string[]) {
  const timestamp = BigInt(subject.nowMs) * 1_000_000n;
  return metricRows.flatMap(([name, { type, of }]) =>
    of(subject).map(
      ({ labels, value }) =>
        ({
          name,
          timestamp,
          metricType: type,
          labelValues: [...labelValues, ...labels],
          value: { value: BigInt(value) },
        }) satisfies Answer<typeof MetricSchema>,
    ),
  );
}
