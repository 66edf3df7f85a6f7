import type { Steps } from '../containerd/walk-steps.ts';
import { agentSteps } from './agent-steps.ts';
import { appSteps } from './app-steps.ts';
import type { AddOns } from './build-add-ons.ts';
import type { NodeConformance } from './build-node-conformance.ts';
import { csiSteps, csiVolumeSteps } from './csi-steps.ts';
import { installSteps, upgradeSteps } from './deploy-steps.ts';
import { type Worker, startContainerdWorker, startPodvmWorker } from './cluster.ts';
import { drainSteps } from './drain-steps.ts';
import { fleetFailureSteps, fleetInstallSteps, fleetLeaveSteps, fleetUpgradeSteps } from './fleet-steps.ts';
import { helmInstallSteps, helmUpgradeSteps } from './helm-steps.ts';
import { kubectlSteps } from './kubectl-steps.ts';
import { leaveBareSteps, leaveByHelmSteps, leaveSteps } from './leave-steps.ts';
import { metricsSteps } from './metrics-steps.ts';
import { networkSteps } from './network-steps.ts';
import type { ClusterNode } from './node-namespaces.ts';
import { cordonSteps, podvmSteps, runcSteps } from './node-conformance-steps.ts';
import { iptablesPolicies } from './policies.ts';
import { policySteps } from './policy-steps.ts';
import { restartSteps } from './restart-steps.ts';
import { systemSteps } from './system-steps.ts';
import type { HelmTour, Tour, WorkerTour } from './tour.ts';
import { workloadSteps } from './workload-steps.ts';

export type Walk = <T>(steps: Steps<T>, tour: T) => Promise<void>;
export type Part = (walk: Walk, tour: Tour) => Promise<void>;

/** A walk through a cluster: its beginning and end, and between them parts that can be walked alone. */
export interface Suite {
  readonly begin: Part;
  /** In their order. */
  readonly parts: Readonly<Record<string, Part>>;
  readonly leave: Part;
  /** The worker of the first node; that of the second has containerd. */
  readonly first: { readonly what: string; readonly start: (node: ClusterNode) => Promise<Worker> };
  /** Whether the first process of each node is systemd. */
  readonly hasSystemd: boolean;
}

/** The first node's kubelet uses podvm with these settings, in addition to those of every suite. */
const withPodvm = (settings: object = {}): Pick<Suite, 'first' | 'hasSystemd'> => ({
  first: { what: 'a node whose kubelet uses podvm runs', start: (node) => startPodvmWorker(node, settings) },
  hasSystemd: false,
});

const once =
  (...lists: readonly Steps<Tour>[]): Part =>
  async (walk, tour) => {
    for (const steps of lists) await walk(steps, tour);
  };

const onEachWorker =
  (steps: Steps<WorkerTour>): Part =>
  async (walk, tour) => {
    for (const at of [tour.first, tour.second]) {
      tour.say(`at ${at.node.name}:`);
      await walk(steps, { ...tour, at });
    }
  };

/** What Kubernetes itself does. */
export const tourSuite: Suite = {
  begin: once(installSteps, systemSteps, networkSteps, appSteps, policySteps(iptablesPolicies)),
  parts: {
    workers: onEachWorker([...workloadSteps, ...kubectlSteps, ...restartSteps]),
    upgrade: once(upgradeSteps),
    drain: once(drainSteps),
  },
  leave: once(leaveSteps),
  ...withPodvm(),
};

/** One installation of podvm on both nodes by Helm, each with systemd and containerd. */
export const upgradeSuite = (helm: string): Suite => {
  const typing =
    (steps: Steps<HelmTour>): Part =>
    async (walk, tour) =>
      await walk(steps, { ...tour, helm });
  return {
    begin: typing(fleetInstallSteps),
    parts: { upgrade: typing(fleetUpgradeSteps), failures: typing(fleetFailureSteps) },
    leave: typing(fleetLeaveSteps),
    first: { what: 'a node whose kubelet uses containerd with runc runs', start: startContainerdWorker },
    hasSystemd: true,
  };
};

/** What clusters have beside Kubernetes itself. */
export const addOnSuite = (addOns: AddOns): Suite => ({
  begin: async (walk, tour) => {
    await walk(helmInstallSteps, { ...tour, helm: addOns.helm });
    await walk(systemSteps, tour);
  },
  parts: {
    metrics: once(metricsSteps),
    policy: once(agentSteps),
    csi: async (walk, tour) => {
      await walk(csiSteps, tour);
      await onEachWorker(csiVolumeSteps)(walk, tour);
    },
    helm: async (walk, tour) => await walk(helmUpgradeSteps, { ...tour, helm: addOns.helm }),
  },
  leave: async (walk, tour) => await walk(leaveByHelmSteps, { ...tour, helm: addOns.helm }),
  ...withPodvm(),
});

/** Kubernetes' own tests of a node, on each worker alone. */
export const nodeConformanceSuite = (tests: NodeConformance, focus: string | undefined): Suite => ({
  begin: once(cordonSteps, systemSteps),
  parts: {
    podvm: async (walk, tour) => await walk(podvmSteps, { ...tour, tests, focus }),
    runc: async (walk, tour) => await walk(runcSteps, { ...tour, tests, focus }),
  },
  leave: once(leaveBareSteps),
  // Some specs compare a pod with one in the network of the host.
  ...withPodvm({ delegateNamespaces: '*' }),
});
