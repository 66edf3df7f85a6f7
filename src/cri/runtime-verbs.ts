import type { CriParts } from './parts.ts';
import type { Verbs } from './rpc/service.ts';
import { attach } from './runtime-service/attach.ts';
import { refuseCheckpoint } from './runtime-service/checkpoints.ts';
import { containerStats } from './runtime-service/container-stats.ts';
import { containerStatus } from './runtime-service/container-status.ts';
import { createContainer } from './runtime-service/create-container.ts';
import { exec } from './runtime-service/exec.ts';
import { execSync } from './runtime-service/exec-sync.ts';
import { getContainerEvents } from './runtime-service/get-container-events.ts';
import { listContainerStats } from './runtime-service/list-container-stats.ts';
import { listMetricDescriptors } from './runtime-service/list-metric-descriptors.ts';
import { listPodSandboxMetrics } from './runtime-service/list-pod-sandbox-metrics.ts';
import { streamPodSandboxMetrics } from './runtime-service/stream-pod-sandbox-metrics.ts';
import { listContainers } from './runtime-service/list-containers.ts';
import { listPodSandbox } from './runtime-service/list-pod-sandbox.ts';
import { listPodSandboxStats } from './runtime-service/list-pod-sandbox-stats.ts';
import { podSandboxStats } from './runtime-service/pod-sandbox-stats.ts';
import { podSandboxStatus } from './runtime-service/pod-sandbox-status.ts';
import { portForward } from './runtime-service/port-forward.ts';
import { removeContainer } from './runtime-service/remove-container.ts';
import { removePodSandbox } from './runtime-service/remove-pod-sandbox.ts';
import { reopenContainerLog } from './runtime-service/reopen-container-log.ts';
import { runPodSandbox } from './runtime-service/run-pod-sandbox.ts';
import { runtimeConfig } from './runtime-service/runtime-config.ts';
import { startContainer } from './runtime-service/start-container.ts';
import { status } from './runtime-service/status.ts';
import { stopContainer } from './runtime-service/stop-container.ts';
import { stopPodSandbox } from './runtime-service/stop-pod-sandbox.ts';
import { streamContainerStats } from './runtime-service/stream-container-stats.ts';
import { streamContainers } from './runtime-service/stream-containers.ts';
import { streamPodSandboxStats } from './runtime-service/stream-pod-sandbox-stats.ts';
import { streamPodSandboxes } from './runtime-service/stream-pod-sandboxes.ts';
import { updateContainerResources } from './runtime-service/update-container-resources.ts';
import { updatePodSandboxResources } from './runtime-service/update-pod-sandbox-resources.ts';
import { updateRuntimeConfig } from './runtime-service/update-runtime-config.ts';
import { version } from './runtime-service/version.ts';
import type { RuntimeService } from './schema/api_pb.ts';

/** The handlers of CRI's RuntimeService. */
export function runtimeVerbs(parts: CriParts): Verbs<typeof RuntimeService> {
  return {
    version: () => version(parts),
    status: (request) => status(parts, request),
    updateRuntimeConfig: () => updateRuntimeConfig(),
    runtimeConfig: () => runtimeConfig(),
    runPodSandbox: (request, signal) => runPodSandbox(parts, request, signal),
    stopPodSandbox: (request, signal) => stopPodSandbox(parts, request, signal),
    removePodSandbox: (request, signal) => removePodSandbox(parts, request, signal),
    podSandboxStatus: (request, signal) => podSandboxStatus(parts, request, signal),
    listPodSandbox: (request) => listPodSandbox(parts, request),
    streamPodSandboxes: (request) => streamPodSandboxes(parts, request),
    updatePodSandboxResources: (request, signal) => updatePodSandboxResources(parts, request, signal),
    createContainer: (request, signal) => createContainer(parts, request, signal),
    startContainer: (request, signal) => startContainer(parts, request, signal),
    stopContainer: (request, signal) => stopContainer(parts, request, signal),
    removeContainer: (request, signal) => removeContainer(parts, request, signal),
    containerStatus: (request) => containerStatus(parts, request),
    listContainers: (request) => listContainers(parts, request),
    streamContainers: (request) => streamContainers(parts, request),
    updateContainerResources: (request, signal) => updateContainerResources(parts, request, signal),
    reopenContainerLog: (request) => reopenContainerLog(parts, request),
    execSync: (request, signal) => execSync(parts, request, signal),
    exec: (request) => exec(parts, request),
    attach: (request) => attach(parts, request),
    portForward: (request) => portForward(parts, request),
    containerStats: (request, signal) => containerStats(parts, request, signal),
    listContainerStats: (request, signal) => listContainerStats(parts, request, signal),
    streamContainerStats: (request, signal) => streamContainerStats(parts, request, signal),
    podSandboxStats: (request, signal) => podSandboxStats(parts, request, signal),
    listPodSandboxStats: (request, signal) => listPodSandboxStats(parts, request, signal),
    streamPodSandboxStats: (request, signal) => streamPodSandboxStats(parts, request, signal),
    getContainerEvents: (request, signal) => getContainerEvents(parts, request, signal),
    checkpointContainer: refuseCheckpoint,
    checkpointPod: refuseCheckpoint,
    restorePod: refuseCheckpoint,
    listMetricDescriptors: () => listMetricDescriptors(),
    listPodSandboxMetrics: (request, signal) => listPodSandboxMetrics(parts, request, signal),
    streamPodSandboxMetrics: (request, signal) => streamPodSandboxMetrics(parts, request, signal),
  };
}
