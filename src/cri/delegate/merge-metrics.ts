import type { Answer } from '../rpc/service.ts';
import type { Metric, MetricDescriptor, MetricDescriptorSchema, PodSandboxMetrics } from '../schema/api_pb.ts';

type Descriptor = Answer<typeof MetricDescriptorSchema>;

/** Returns the descriptors of both. For a metric that both have, ours gives the labels. */
export function mergeDescriptors(own: readonly Descriptor[], theirs: readonly MetricDescriptor[]): Descriptor[] {
  const names = new Set(own.map(({ name }) => name));
  return [...own, ...theirs.filter(({ name }) => !names.has(name))];
}

/**
 * Puts the labels of the delegate's metrics in our order, with "" for labels that they lack: a kubelet expects all
 * metrics of a name to have the labels of its one descriptor.
 */
export function withOwnLabels(
  pods: readonly PodSandboxMetrics[],
  own: readonly Descriptor[],
  theirs: readonly MetricDescriptor[],
): PodSandboxMetrics[] {
  const ownKeys = new Map(own.map(({ name, labelKeys }) => [name, labelKeys ?? []]));
  const theirKeys = new Map(theirs.map(({ name, labelKeys }) => [name, labelKeys]));
  const arrange = (metric: Metric): Metric => {
    const [wanted, given] = [ownKeys.get(metric.name), theirKeys.get(metric.name)];
    if (wanted === undefined || given === undefined) return metric;
    return { ...metric, labelValues: wanted.map((key) => metric.labelValues[given.indexOf(key)] ?? '') };
  };
  return pods.map((pod) => ({
    ...pod,
    metrics: pod.metrics.map(arrange),
    containerMetrics: pod.containerMetrics.map((container) => ({
      ...container,
      metrics: container.metrics.map(arrange),
    })),
  }));
}
