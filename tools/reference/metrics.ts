import { guestRows, labelKeys } from '../../src/metrics/guest-metrics.ts';
import { machineLabelKeys, machineMetrics } from '../../src/metrics/machine-metrics.ts';
import type { MetricRow, Unit } from '../../src/metrics/metric-row.ts';
import { nodeMetrics } from '../../src/metrics/node-metrics.ts';
import { code, page, table } from './markdown.ts';

const unitWords = {
  count: '',
  bytes: 'bytes',
  seconds: 'seconds',
  secondsSince1970: 'seconds since 1970',
  microseconds: 'microseconds',
  ratio: 'ratio',
} as const satisfies Record<Unit, string>;

type Row = readonly [string, Pick<MetricRow, 'type' | 'unit' | 'labels' | 'about'>];

const tableOf = (rows: readonly Row[]): string =>
  table(
    ['metric', 'type', 'unit', 'further labels', 'meaning'],
    rows.map(([name, { type, unit, labels, about }]) => [
      code(name),
      type,
      unitWords[unit],
      labels.map(code).join(', '),
      about,
    ]),
  );

export async function metricsPage(): Promise<string> {
  return await page(
    'Metrics',
    '`src/metrics/cgroup-metrics.ts`, `device-metrics.ts`, `machine-metrics.ts` and `node-metrics.ts`',
    'All metrics that a node serves on `/metrics`. [Monitoring](../monitoring.md) says how to scrape them and which one ' +
      'answers which question.',
    '## Pods and containers, by their guests',
    'A kubelet gets these from `podvm daemon` by `ListPodSandboxMetrics`, too. The names are ' +
      "cAdvisor's; the figures are the guest's.",
    `All have the labels ${labelKeys.map(code).join(', ')}, and those in the table. The metrics of a pod as a ` +
      'whole have an empty `container` label. Over CRI, values are whole numbers, as CRI has no others.',
    tableOf(guestRows),
    'Metrics of network interfaces and of disks (`interface` labels; merged requests, times and requests in progress) ' +
      'are those of the pod. What a container has written (`container_fs_usage_bytes`, `_limit_bytes`, `_inodes_*`) is ' +
      "the container's. [Limitations](../limitations.md) says which of cAdvisor's metrics are missing.",
    '## Machines, by the node',
    `What a pod costs its node. All have the labels ${machineLabelKeys.map(code).join(', ')}; the id is the sandbox's.`,
    tableOf(Object.entries(machineMetrics)),
    '## The node',
    'Counters begin with the process that serves the node.',
    tableOf(Object.entries(nodeMetrics)),
  );
}
