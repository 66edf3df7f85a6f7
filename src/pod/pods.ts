import type { GuestText } from '#base/guest-text.ts';
import type { Log } from '#host/log/log.ts';
import type { Clock } from '#host/clock.ts';
import type { Container, OutputChunk, RegistryLogin, Sandbox, Sandboxes } from '#sandbox/sandbox.ts';
import type { DebugWish } from './debug-container.ts';
import type { Claim, ConfigMap, Pod, Secret } from './schema/objects.ts';
import type { Service } from './schema/service.ts';
import type { CronJob, Job, Replicated } from './schema/workloads.ts';

/**
 * Pod semantics without a kubelet. A *manifest* is the checked input of a user; a *running pod* is one of its Pods,
 * driven through init containers, restarts, probes and termination on one sandbox. `parseManifests` is in
 * `manifest.ts`, `startPod` in `start-pod.ts`.
 */
export interface Manifest {
  /**
   * Pods in the order of the text, with `metadata.namespace` and all other defaults filled in; also those of Deployments and
   * other workloads.
   */
  readonly pods: readonly Pod[];
  /** Pods with unsupported features; the others run. */
  readonly refused: readonly RefusedPod[];
  readonly jobs: readonly Job[];
  readonly cronJobs: readonly CronJob[];
  readonly services: readonly Service[];
  /** Workloads whose pods are among `pods`. */
  readonly workloads: readonly Replicated[];
  /** Objects with a generateName instead of a name (`Job default/pi-...`): each reading gives them other names. */
  readonly generated: readonly string[];
  readonly configMaps: readonly ConfigMap[];
  readonly secrets: readonly Secret[];
  /** PersistentVolumeClaims: the volumes that must exist before the pods start. */
  readonly claims: readonly Claim[];
  /** Warnings about ignored fields, which do not stop the pod. */
  readonly warnings: readonly ManifestProblem[];
}

export interface RefusedPod {
  readonly namespace: string;
  readonly name: string;
  readonly problems: readonly ManifestProblem[];
}

export interface ManifestProblem {
  readonly file: string;
  /** Counted from 1. */
  readonly line: number;
  /** Path in kubectl's notation: `spec.containers[0].imagee`. */
  readonly field: string;
  readonly message: string;
}

/** Inputs of a pod besides its own YAML. */
export interface PodConfig {
  /** ConfigMaps of all namespaces; a pod sees those of its own. */
  readonly configMaps: readonly ConfigMap[];
  readonly secrets: readonly Secret[];
  /** Logins of the user who runs it, which are tried after those of its imagePullSecrets. */
  readonly logins?: readonly RegistryLogin[];
  /** Such logins ended with the process that had them. */
  readonly hasLostLogins?: boolean;
  readonly network: 'cni' | 'none';
  /** Address of the server for names of Services; absent: they do not resolve. */
  readonly nameserver?: string;
  /** Size of terminals of its containers as they start; default: none, as under a kubelet. */
  readonly terminalSize?: TerminalSize;
  /** What a client waits for. Absent: for nothing, as of a pod that `podvm apply` starts. */
  readonly awaited?: 'end' | 'start';
  /** `spec.nodeName` of the downward API. */
  readonly nodeName: string;
  /** `status.hostIP` of the downward API. */
  readonly hostIP?: string;
  /** True if its Secrets are lost, since only the process that has ended knew them. */
  readonly hasLostSecrets?: boolean;
  /** Saves the pod for the next process; undefined: the pod ends with its process. */
  readonly kept?: KeptPod;
  /** Returns the path of the image file of a named volume, as claims of the pod mean it. Without it such pods are refused. */
  readonly volumePath?: (namespace: string, name: string) => string;
  /** Directory of `seccompProfile.localhostProfile`. Without it such profiles are refused. */
  readonly seccompDirectory?: string;
  /** Resources of a container without limits, for `resourceFieldRef`; default: 1 core and no memory limit. */
  readonly machine?: { readonly cpuMillis: number; readonly memoryBytes: number };
}

/** New limits of one container of a running pod; absent ones stay. */
export interface ContainerSize {
  readonly container: string;
  readonly memoryLimitBytes?: number;
  readonly cpuLimitMillis?: number;
}

/** In characters. */
export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** A pod as recorded for the next process, as JSON; `pod-memory.ts` has its schema. */
export type RecordedPod = Readonly<Record<string, unknown>>;

/** A pod that outlives its process. */
export interface KeptPod {
  /** Records it for the next process, which then takes it over. Never rejects. */
  readonly save: (memory: RecordedPod) => Promise<void>;
}

export interface PodParts {
  readonly sandboxes: Sandboxes;
  readonly log: Log;
  readonly clock: Clock;
}

export type PodPhase = 'Pending' | 'Running' | 'Succeeded' | 'Failed';

/** Kubernetes' PodStatus, with the fields that apply here; times are RFC 3339 in UTC. */
export interface PodStatus {
  readonly phase: PodPhase;
  /** Reason, when the phase alone does not tell it: `DeadlineExceeded`, `SandboxFailed`, `ErrImagePull`... */
  readonly reason?: string;
  readonly message?: string;
  /** Whether the pod is ending. */
  readonly isTerminating: boolean;
  readonly startTime: string;
  readonly podIPs: readonly string[];
  readonly conditions: readonly PodCondition[];
  /** Containers in the order of the manifest: init containers and sidecars first. */
  readonly containers: readonly PodContainerStatus[];
}

export interface PodCondition {
  readonly type: 'PodScheduled' | 'PodReadyToStartContainers' | 'Initialized' | 'ContainersReady' | 'Ready';
  readonly status: 'True' | 'False';
}

export interface PodContainerStatus {
  readonly name: string;
  readonly kind: ContainerKind;
  readonly image: string;
  readonly imageID: string;
  readonly restartCount: number;
  readonly ready: boolean;
  /** Its startup probe, if any, has succeeded and its postStart hook has ended. */
  readonly started: boolean;
  readonly state: PodContainerState;
  readonly lastState?: TerminatedState;
}

export type ContainerKind = 'init' | 'sidecar' | 'main';

export type PodContainerState =
  | { readonly kind: 'waiting'; readonly reason: string; readonly message?: string }
  | { readonly kind: 'running'; readonly startedAt: string }
  | TerminatedState;

export interface TerminatedState {
  readonly kind: 'terminated';
  readonly exitCode: number;
  readonly signal?: number;
  /** `Completed`, `Error`, `OOMKilled`, `StartError`... */
  readonly reason: string;
  /** Why it could not run, and its termination message. */
  readonly message?: GuestText;
  readonly startedAt?: string;
  readonly finishedAt: string;
}

/** An event with Kubernetes' reasons: Pulled, Created, Started, Unhealthy, BackOff, Killing, OOMKilled, Failed... */
export interface PodEvent {
  /** Time of the last occurrence. */
  readonly at: string;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  /** One printable line; guest text is escaped. */
  readonly message: string;
  /** Action for the operator, in one sentence. */
  readonly fix?: string;
  /** Number of consecutive occurrences, which are reported as one event. */
  readonly count: number;
  readonly container?: string;
}

/** Number of events that are kept for a pod. */
export const maxEvents = 500;

export interface PodFinish {
  /**
   * Exit code of the first failing container; 0 when all succeeded; 124 past its deadline, 125 when it could not be run
   * at all.
   */
  readonly exitCode: number;
  /** `Completed`, `Error`, `OOMKilled`, `DeadlineExceeded`, `Terminated`, `ErrImagePull`, `SandboxFailed`... */
  readonly reason: string;
  /** Details in one printable line. */
  readonly message?: string;
}

/** Reason of a pod that got no machine: the node could not make one, or what the pod refers to was not there. */
export const noMachine = 'FailedCreatePodSandBox';

export const hadNoMachine = ({ reason }: Pick<PodFinish, 'reason'>): boolean => reason === noMachine;

export interface RunningPod {
  readonly namespace: string;
  readonly name: string;
  /** The Pod with its uid, all defaults, and its present limits. */
  readonly pod: Pod;
  readonly uid: string;
  readonly createdAt: Date;
  /** A snapshot. `onChange` reports changes. */
  readonly status: PodStatus;
  readonly events: readonly PodEvent[];
  /** The pod's sandbox; undefined until it is ready. */
  readonly sandbox: Sandbox | undefined;
  /** Subscribes to events. Returns a function that ends the subscription. */
  onEvent(listener: (event: PodEvent) => void): () => void;
  onChange(listener: (status: PodStatus) => void): () => void;
  /**
   * Subscribes to the output of all containers over all restarts, in order per container. A subscription in the same
   * turn as `startPod` misses nothing. A container is blocked while the promise of any listener is pending.
   */
  onOutput(listener: (container: string, chunk: OutputChunk) => Promise<void>): () => void;
  /** Settles once, when everything has ended, all output was delivered and the sandbox has stopped. Never rejects. */
  readonly finished: Promise<PodFinish>;
  /**
   * Runs preStop hooks, sends SIGTERM, and SIGKILL after `graceSeconds` (default: the pod's). A second call can only
   * shorten the time. Resolves when the pod has finished.
   */
  terminate(graceSeconds?: number): Promise<PodFinish>;
  /** Sends SIGKILL at once. */
  kill(): Promise<PodFinish>;
  /**
   * Gives it other ConfigMaps and Secrets: files of its volumes change, variables of containers when they start again.
   * Changes nothing if they lack what the pod needs. Errors: `notFound`, `failedPrecondition` for a Secret that is lost and
   * not given, and those of `Sandbox.updateVolume`.
   */
  changeData(data: Pick<PodConfig, 'configMaps' | 'secrets'>, signal: AbortSignal): Promise<void>;
  /**
   * Changes limits of a container in place, and those of the pod with them. They hold for its later starts, too. Returns
   * sentences about limits that were reduced. Errors: those of `withSize` and `resizeInPlace`.
   */
  resize(size: ContainerSize, signal: AbortSignal): Promise<readonly string[]>;
  /**
   * Freezes its machine, or lets it run again. A paused pod is not probed, and continues when it is ended. Errors:
   * `failedPrecondition` without a machine.
   */
  setPaused(isPaused: boolean): Promise<void>;
  /** Makes a container that sees the processes of one of its own; the caller starts and removes it (`debug-container.ts`). */
  debug(wish: DebugWish, signal: AbortSignal): Promise<Container>;
  /** Kills the remaining containers and removes the sandbox with its directory and logs. Idempotent. */
  remove(): Promise<void>;
  /**
   * Leaves a kept pod running without this process: no more actions are decided, and `finished` stays pending. Returns
   * false for a pod that is not kept, or has no sandbox yet.
   */
  leave(): boolean;
}
