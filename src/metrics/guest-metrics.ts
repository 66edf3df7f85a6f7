import type { MetricFigures, SandboxMetrics } from '#sandbox/figures/sandbox-stats.ts';
import { cgroupMetrics } from './cgroup-metrics.ts';
import { deviceMetrics } from './device-metrics.ts';
import type { CpuResources, GuestSubject, MetricRow } from './metric-row.ts';

/** Labels of cAdvisor's metrics in a kubelet. */
export const labelKeys = ['container', 'id', 'image', 'name', 'namespace', 'pod'] as const;

/**
 * Figures of guests, under cAdvisor's names where it has them. A kubelet gets them over CRI, Prometheus through
 * `/metrics`; `docs/reference/metrics.md` is printed from this table.
 */
export const guestRows: readonly (readonly [string, MetricRow])[] = Object.entries({
  ...cgroupMetrics,
  ...deviceMetrics,
});

interface Named {
  readonly id: string;
  readonly name: string;
  readonly startedAt: Date | undefined;
  readonly resources: CpuResources | undefined;
}

/** The pod whose guest was measured. */
export interface MeasuredPod extends Named {
  readonly namespace: string;
  readonly containers: readonly (Named & { readonly image: string })[];
}

/** A subject with the values of `labelKeys`. */
export interface Measured {
  readonly id: string;
  readonly labels: readonly string[];
  readonly subject: GuestSubject;
}

/** A pod as a whole (with an empty container label, as cAdvisor), and its containers that were measured. */
export function measuredOf(
  pod: MeasuredPod,
  { pod: figures, containers: all, dropped }: SandboxMetrics,
  nowMs: number,
): { readonly pod: Measured; readonly containers: readonly Measured[] } {
  const { id, namespace, name, startedAt, resources } = pod;
  const processes = sumOf(all.map((each) => each.processes));
  const whole = processes === undefined ? figures : { ...figures, processes };
  const containers = pod.containers.flatMap((container) => {
    const its = all.find((each) => each.id === container.id);
    if (its === undefined) return [];
    return [
      {
        id: container.id,
        labels: [container.name, container.id, container.image, container.id, namespace, name],
        subject: { figures: its, nowMs, startedAt: container.startedAt, resources: container.resources },
      },
    ];
  });
  return {
    pod: {
      id,
      labels: ['', id, '', '', namespace, name],
      subject: { figures: whole, nowMs, startedAt, resources, dropped },
    },
    containers,
  };
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
