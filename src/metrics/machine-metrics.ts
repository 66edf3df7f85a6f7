import { requestKinds } from '#base/file-requests.ts';
import type { HistogramReading } from '#base/histogram.ts';
import type { HostFigures } from '#sandbox/figures/host-figures.ts';
import type { MetricFigures } from '#sandbox/figures/sandbox-stats.ts';
import { requestsOf } from '#sandbox/figures/served-requests.ts';
import type { SandboxStatus } from '#sandbox/sandbox.ts';
import { type MetricRow, rowsOf } from './metric-row.ts';

/** Figures of one pod's machine from the host, and the last ones from its guest. */
export interface MachineSubject {
  readonly status: Pick<SandboxStatus, 'parts' | 'accelerator'>;
  /** Undefined when the machine has not been measured, or is gone. */
  readonly host: HostFigures | undefined;
  /** Figures of the pod's cgroup; undefined until the guest has answered. */
  readonly guest: MetricFigures | undefined;
  /** Age of the guest's figures. */
  readonly guestAgeMs: number | undefined;
  /** Memory that the pod requests; undefined if it requests none. */
  readonly memoryRequestBytes: number | undefined;
  /** Requests for its figures that the guest has not answered in time. */
  readonly unanswered: number;
}

const { counter, gauge, each, histograms } = rowsOf<MachineSubject>();

/** Computes a value from the figures of both host and guest. */
const of =
  (value: (host: HostFigures, guest: MetricFigures) => number | undefined) =>
  ({ host, guest }: MachineSubject) =>
    host === undefined || guest === undefined ? undefined : value(host, guest);

const ratio = (whole: number, part: number): number | undefined => (part > 0 ? whole / part : undefined);

/** Sums the requests of all file servers of a pod so far, by kind. */
function requestsByKind({ fileServers, otherRequests }: HostFigures) {
  const all = fileServers.map(({ requests }) => requests);
  if (otherRequests !== undefined) all.push(otherRequests);
  if (all.length === 0) return [];
  const sums = requestsOf(all);
  return requestKinds.map((kind) => ({ labels: [kind], value: sums[kind] }));
}

/** Labels of these metrics; the id is the sandbox's. */
export const machineLabelKeys = ['namespace', 'pod', 'id'] as const;

/** Cost of a pod to its node, by machine. Runtimes of processes have no such metrics. */
export const machineMetrics = {
  podvm_pod_info: each(
    'gauge',
    ['accelerator', 'qemu', 'kernel'],
    'count',
    'Always 1: what the machine is made of',
    ({ status: { accelerator = '', parts } }) => [{ labels: [accelerator, parts.qemu, parts.kernel], value: 1 }],
  ),

  podvm_pod_guest_memory_bytes: gauge(
    'bytes',
    'Memory that the machine has, used or not',
    ({ host }) => host?.guestMemoryBytes,
  ),
  podvm_pod_memory_request_bytes: gauge(
    'bytes',
    'Memory that the pod requests, as far as it is known; of a pod of a kubelet to a thousandth of the node',
    ({ memoryRequestBytes }) => memoryRequestBytes,
  ),
  podvm_pod_vmm_private_memory_bytes: gauge(
    'bytes',
    'Memory of the node that only this VMM uses, guest included: it is free when the pod ends',
    ({ host }) => host?.vmm.privateBytes,
  ),
  podvm_pod_vmm_shared_memory_bytes: gauge(
    'bytes',
    'Memory of files that this VMM uses and others share: the template and programs',
    ({ host }) => host?.vmm.sharedBytes,
  ),
  podvm_pod_vmm_swap_bytes: gauge('bytes', "Memory of the VMM on the node's swap", ({ host }) => host?.vmm.swapBytes),
  podvm_pod_translated_code_bytes: gauge(
    'bytes',
    'The part of its private memory that has held translated code of the guest; absent with KVM',
    ({ host }) => host?.translatedCode?.bytes,
  ),
  podvm_pod_translated_code_limit_bytes: gauge(
    'bytes',
    'Size at which a VMM discards all translated code and begins again',
    ({ host }) => host?.translatedCode?.limitBytes,
  ),
  podvm_pod_memory_overhead_bytes: gauge(
    'bytes',
    "The VMM's private memory less what the pod uses of it; negative while the pod's memory is the template's",
    of((host, guest) => host.vmm.privateBytes - guest.memoryBytes),
  ),
  podvm_pod_memory_overhead_ratio: gauge(
    'ratio',
    "The VMM's private memory divided by what the pod uses of it",
    of((host, guest) => ratio(host.vmm.privateBytes, guest.memoryBytes)),
  ),
  podvm_pod_vmm_page_faults_total: each(
    'counter',
    ['kind'],
    'count',
    'Page faults of the VMM: those that waited for a disk (`major`), and the others (`minor`)',
    ({ host }) =>
      host === undefined
        ? []
        : [
            { labels: ['minor'], value: host.vmm.minorFaults },
            { labels: ['major'], value: host.vmm.majorFaults },
          ],
  ),

  podvm_pod_vmm_cpu_seconds_total: counter(
    'seconds',
    'Processor time of the node that the VMM has used',
    ({ host }) => host?.vmm.cpuSeconds,
  ),
  podvm_pod_vcpu_seconds_total: counter(
    'seconds',
    "The part of that in which it ran the machine's processors",
    ({ host }) => host?.vcpus.cpuSeconds,
  ),
  podvm_pod_vcpu_wait_seconds_total: counter(
    'seconds',
    "Time in which one of the machine's processors could run and waited for the node's: what a guest calls steal",
    ({ host }) => host?.vcpus.waitSeconds,
  ),
  podvm_pod_cpu_overhead_seconds: gauge(
    'seconds',
    'Processor time of the VMM less that of the pod, since the machine started',
    of((host, guest) => host.vmm.cpuSeconds - guest.cpuUsec / 1e6),
  ),
  podvm_pod_cpu_overhead_ratio: gauge(
    'ratio',
    'Processor time of the VMM divided by that of the pod, since the machine started',
    of((host, guest) => ratio(host.vmm.cpuSeconds, guest.cpuUsec / 1e6)),
  ),

  podvm_pod_vmm_read_bytes_total: counter(
    'bytes',
    "Data that the VMM had the node's disks read",
    ({ host }) => host?.vmm.readBytes,
  ),
  podvm_pod_vmm_written_bytes_total: counter(
    'bytes',
    "Data that the VMM had the node's disks write",
    ({ host }) => host?.vmm.writtenBytes,
  ),

  podvm_pod_file_servers: gauge(
    'count',
    'File servers of the volumes that the pod shares with the node',
    ({ host }) => host?.fileServers.length,
  ),
  podvm_pod_file_server_private_memory_bytes: gauge('bytes', 'Memory that only these file servers use', ({ host }) =>
    host?.fileServers.reduce((sum, { privateBytes }) => sum + privateBytes, 0),
  ),
  podvm_pod_file_server_request_seconds: histograms(
    ['operation'],
    'seconds',
    "Time that the node's file systems took for requests of the pod, by kind: `look` (names and attributes), `read`, " +
      '`write`, `change` (making, removing, renaming), `flush` and `other`',
    ({ host }) => (host === undefined ? [] : requestsByKind(host)),
  ),
  podvm_pod_file_server_oldest_request_seconds: gauge(
    'seconds',
    'Age of the oldest request that a file server of the pod has not finished; 0 without one',
    ({ host }) =>
      host === undefined || host.fileServers.length === 0
        ? undefined
        : Math.max(...host.fileServers.map(({ oldestSeconds }) => oldestSeconds)),
  ),

  podvm_pod_link_received_bytes_total: counter(
    'bytes',
    'Data that the agent sent to the node: answers and output',
    ({ host }) => host?.link.receivedBytes,
  ),
  podvm_pod_link_sent_bytes_total: counter(
    'bytes',
    'Data that the node sent to the agent: calls and input',
    ({ host }) => host?.link.sentBytes,
  ),
  podvm_pod_link_stalls_total: counter(
    'count',
    "Pauses of the link of a guest that took more of the node's time than its share",
    ({ host }) => host?.link.stalls,
  ),
  podvm_pod_link_stalled_seconds_total: counter(
    'seconds',
    'Length of those pauses',
    ({ host }) => host?.link.stalledSeconds,
  ),

  podvm_pod_figures_age_seconds: gauge('seconds', "Age of the guest's figures", ({ guestAgeMs }) =>
    guestAgeMs === undefined ? undefined : guestAgeMs / 1000,
  ),
  podvm_pod_unanswered_measurements_total: counter(
    'count',
    'Requests for figures that the guest did not answer in time',
    ({ unanswered }) => unanswered,
  ),
} as const satisfies Record<string, MetricRow<MachineSubject> | MetricRow<MachineSubject, HistogramReading>>;
