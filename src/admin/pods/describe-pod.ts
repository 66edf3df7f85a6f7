import { printable } from '#base/guest-text.ts';
import { readConfinement, weaknesses } from '#host/jail/confinement.ts';
import type { ContainerSummary, PodDetails, PodEventJson, PodSummary } from '#api/pods.ts';
import type { PodContainerStatus, PodEvent, RunningPod } from '#pod/pods.ts';
import { readProcessFigures } from '#host/process/process-figures.ts';
import { memoryRequestOf } from '#sandbox/resources.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';

export function summaryOf(pod: RunningPod): PodSummary {
  const { status } = pod;
  const isPaused = !status.isTerminating && pod.sandbox?.status.isPaused === true;
  const counted = status.containers.filter((container) => container.kind !== 'init');
  return {
    namespace: pod.namespace,
    name: pod.name,
    phase: status.isTerminating ? 'Terminating' : isPaused ? 'Paused' : status.phase,
    ready: `${counted.filter((container) => container.ready).length}/${counted.length}`,
    restarts: status.containers.reduce((sum, container) => sum + container.restartCount, 0),
    createdAt: pod.createdAt.toISOString(),
    addresses: [...status.podIPs],
    labels: { ...pod.pod.metadata.labels },
    images: status.containers.map(({ image }) => image),
    ...(isPaused ? {} : optionalReason(status.reason ?? worstReason(status.containers))),
  };
}

const optionalReason = (reason: string | undefined) => (reason === undefined ? {} : { reason });

/** Returns the reason of the container in the worst state, shown first to users. */
function worstReason(containers: readonly PodContainerStatus[]): string | undefined {
  for (const { state } of containers) {
    if (state.kind === 'waiting' && !['PodInitializing', 'ContainerCreating'].includes(state.reason))
      return state.reason;
    if (state.kind === 'terminated' && state.exitCode !== 0) return state.reason;
  }
  return undefined;
}

export async function detailsOf(pod: RunningPod, signal: AbortSignal): Promise<PodDetails> {
  return {
    ...summaryOf(pod),
    uid: pod.uid,
    labels: { ...pod.pod.metadata.labels },
    containers: pod.status.containers.map((status) => containerOf(status, pod)),
    events: pod.events.map(eventOf),
    ...(await sandboxOf(pod.sandbox, signal)),
  };
}

export function containerOf(container: PodContainerStatus, { pod: { spec } }: RunningPod): ContainerSummary {
  const { state } = container;
  const declared = spec.containers.find(({ name }) => name === container.name);
  const message = state.kind === 'running' ? undefined : state.message;
  return {
    name: container.name,
    kind: container.kind,
    image: container.image,
    state: state.kind,
    ready: container.ready,
    restartCount: container.restartCount,
    ...(state.kind === 'running' ? {} : { reason: state.reason }),
    ...(message === undefined ? {} : { message: printable(message) }),
    ...(state.kind === 'terminated' ? { exitCode: state.exitCode } : {}),
    ...(state.kind === 'waiting' || state.startedAt === undefined ? {} : { startedAt: state.startedAt }),
    ...(declared?.stdin === true ? { stdin: true } : {}),
    ...(declared?.tty === true ? { tty: true } : {}),
  };
}

export function eventOf(event: PodEvent): PodEventJson {
  return { ...event };
}

export async function sandboxOf(
  sandbox: Sandbox | undefined,
  signal: AbortSignal,
): Promise<Pick<PodDetails, 'sandbox'>> {
  if (sandbox === undefined) return {};
  const { status } = sandbox;
  // A machine that is ending has no statistics; the other fields are still returned.
  const stats = status.state === 'ready' ? await statsOf(sandbox, signal).catch(() => undefined) : undefined;
  const jail = status.vmmPid === undefined ? undefined : await jailOf(status.vmmPid).catch(() => undefined);
  const memoryRequestBytes = memoryRequestOf(sandbox);
  return {
    sandbox: {
      id: sandbox.id,
      state: status.state,
      parts: status.parts,
      ...(status.accelerator === undefined ? {} : { accelerator: status.accelerator }),
      ...(status.vmmPid === undefined ? {} : { vmmPid: status.vmmPid }),
      ...(memoryRequestBytes === undefined ? {} : { memoryRequestBytes }),
      ...(status.failure === undefined ? {} : { failure: status.failure }),
      ...(jail === undefined ? {} : { jail }),
      phases: [...status.phases],
      volumes: [...status.volumes],
      mounts: status.containers.flatMap(({ name, mounts }) => mounts.map((mount) => ({ container: name, ...mount }))),
      logs: Object.fromEntries(status.containers.map((container) => [container.name, container.logPath])),
      ...(stats === undefined
        ? {}
        : {
            stats: {
              ...stats,
              containers: [...stats.containers],
              volumes: [...stats.volumes],
              interfaces: [...stats.interfaces],
            },
          }),
    },
  };
}

async function jailOf(vmmPid: number) {
  const found = await readConfinement(vmmPid);
  const { groups, namespaces, mounts, devices, limits, cgroup } = found;
  return {
    weaknesses: [...weaknesses(found)],
    ...found,
    groups: [...groups],
    namespaces: [...namespaces],
    limits: { ...limits },
    cgroup: { ...cgroup },
    mounts: [...mounts],
    devices: [...devices],
  };
}

/** Age of dropped packets, in `ms`: to count them takes programs, and a page of the dashboard asks every two seconds. */
const droppedAgeMs = 10_000;

async function statsOf(sandbox: Sandbox, signal: AbortSignal) {
  const { vmmPid } = sandbox.status;
  const [stats, vmmPssKiB, dropped] = await Promise.all([
    sandbox.stats(signal),
    sandbox.vmmPssKiB(),
    sandbox.dropped(signal, droppedAgeMs),
  ]);
  const vmm = vmmPid === undefined ? undefined : readProcessFigures(vmmPid);
  const measured = vmm === undefined ? { vmmPssKiB } : { vmmPssKiB, vmmPrivateBytes: vmm.privateBytes };
  return { ...stats, ...measured, ...(dropped === undefined ? {} : { dropped: Object.fromEntries(dropped) }) };
}
