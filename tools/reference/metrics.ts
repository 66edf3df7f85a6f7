import { MetricType } from '../../src/cri/schema/api_pb.ts';
import { labelKeys, metricRows } from '../../src/cri/translate/metrics.ts';
import { code, page, table } from './markdown.ts';

const unitWords = {
  count: '',
  bytes: 'bytes',
  seconds: 'seconds',
  secondsSince1970: 'seconds since 1970',
  microseconds: 'microseconds',
};

export async function metricsPage(): Promise<string> {
  const rows = metricRows.map(([name, { type, unit, labels, about }]) => [
    code(name),
    type === MetricType.COUNTER ? 'counter' : 'gauge',
    unitWords[unit],
    labels.map(code).join(', '),
    about,
  ]);
  return await page(
    'Metrics',
    '`src/cri/translate/cgroup-metrics.ts` and `device-metrics.ts`',
    'Metrics of pods and containers that `podvm daemon` gives a kubelet by `ListPodSandboxMetrics`. The names are ' +
      "cAdvisor's; the figures are the guest's.",
    `All metrics have the labels ${labelKeys.map(code).join(', ')}, and those in the table. The metrics of a pod as a ` +
      'whole have an empty `container` label. Values are whole numbers, as CRI has no others.',
    table(['metric', 'type', 'unit', 'further labels', 'meaning'], rows),
    'Metrics of network interfaces and of disks (`interface` labels; merged requests, times and requests in progress) ' +
      'are those of the pod. What a container has written (`container_fs_usage_bytes`, `_limit_bytes`, `_inodes_*`) is ' +
      "the container's. [Limitations](../limitations.md) says which of cAdvisor's metrics are missing.",
  );
}
