import { PodvmError } from '#base/errors.ts';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { createPodTable } from '#pod/pod-table.ts';
import { NodeCounts } from '#sandbox/figures/node-counts.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import { Activity } from '../activity.ts';
import type { EndedPod, EndedPods } from '../record/ended-pods.ts';
import { sendJson } from '../http.ts';
import { listObjects } from '../objects/list-objects.ts';
import type { KnownJob } from '../pods/jobs.ts';
import { lifeRoutes } from './life-routes.ts';
import { NodePods } from '../pods/node-pods.ts';
import type { NamedVolumes } from '#storage/named-volumes.ts';
import { podRoutes } from './pod-routes.ts';
import type { Routes } from '../routes.ts';
import { volumeRoutes } from './volume-routes.ts';

const noNode = () =>
  Promise.reject(
    new PodvmError('failedPrecondition', 'Cannot run a pod: no node runs', { fix: 'Start one with `podvm run`.' }),
  );
/** Sandboxes of a process without a node: none, and none can be started. */
const noSandboxes: Sandboxes = {
  run: noNode,
  list: () => [],
  get: () => undefined,
  waitingMachines: 0,
  memoryReserveBytes: 0,
  starting: 0,
  counts: new NodeCounts([]),
  templateMadeAt: () => Promise.resolve(undefined),
};

const none = { list: () => [] };

/** Calls about pods and objects in a process without a node: it knows what has ended, and volumes. */
export function endedRoutes(ended: EndedPods, jobs: readonly KnownJob[], volumes: NamedVolumes): Routes {
  const parts = {
    sandboxes: noSandboxes,
    log: silentLog,
    clock: systemClock,
    pods: createPodTable(),
    node: { nodeName: '' },
    ended,
    nameserver: () => undefined,
    startNoMore: () => {},
  };
  const pods = new NodePods(parts, new Activity(systemClock));
  const cancelStart = (pod: EndedPod) => pods.setFailures(pod, undefined);
  const listed = { pods, jobs: { list: () => jobs }, cronJobs: none, services: none, volumes };
  return {
    ...podRoutes(pods, parts),
    ...lifeRoutes(pods, ended, cancelStart),
    ...volumeRoutes(volumes, pods),
    'GET /v1/objects': async ({ response }) => sendJson(response, 200, await listObjects(listed)),
  };
}
