import { guestRows, labelKeys, measuredOf, type Measured } from '#metrics/guest-metrics.ts';
import { helpOf } from '#metrics/metric-row.ts';
import type { SandboxMetrics } from '#sandbox/figures/sandbox-stats.ts';
import type { KnownPod } from '../known-pods.ts';
import type { Answer } from '../rpc/service.ts';
import {
  type MetricDescriptorSchema,
  type MetricSchema,
  MetricType,
  type PodSandboxMetricsSchema,
} from '../schema/api_pb.ts';

export function metricDescriptors() {
  return guestRows.map(
    ([name, row]) =>
      ({ name, help: helpOf(row), labelKeys: [...labelKeys, ...row.labels] }) satisfies Answer<
        typeof MetricDescriptorSchema
      >,
  );
}

/** Returns the metrics of a pod (with an empty container label, as cAdvisor) and of its running containers. */
export function podMetricsOf(known: KnownPod, figures: SandboxMetrics, nowMs: number) {
  const { id, status } = known.sandbox;
  const { name = '', namespace = '' } = known.config.metadata ?? {};
  const containers = [...known.containers.values()].map(({ container, config, resources }) => {
    const { id: containerId, startedAt, image } = container.status;
    return { id: containerId, name: config.metadata?.name ?? '', image, startedAt, resources };
  });
  const resources = known.config.linux?.resources;
  const pod = { id, namespace, name, startedAt: status.createdAt, resources, containers };
  const measured = measuredOf(pod, figures, nowMs);
  return {
    podSandboxId: id,
    metrics: metricsOf(measured.pod),
    containerMetrics: measured.containers.map((each) => ({ containerId: each.id, metrics: metricsOf(each) })),
  } satisfies Answer<typeof PodSandboxMetricsSchema>;
}

const types = { counter: MetricType.COUNTER, gauge: MetricType.GAUGE } as const;

/** Values are rounded down, as CRI has whole numbers only. */
function metricsOf({ subject, labels: labelValues }: Measured) {
  const timestamp = BigInt(subject.nowMs) * 1_000_000n;
  return guestRows.flatMap(([name, { type, of }]) =>
    of(subject).map(
      ({ labels, value }) =>
        ({
          name,
          timestamp,
          metricType: type === 'counter' ? types.counter : types.gauge,
          labelValues: [...labelValues, ...labels],
          value: { value: typeof value === 'bigint' ? value : BigInt(Math.floor(value)) },
        }) satisfies Answer<typeof MetricSchema>,
    ),
  );
}
