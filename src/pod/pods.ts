import type { GuestText } from '#base/guest-text.ts';
import type { Log } from '#host/log.ts';
import type { Clock } from '#host/clock.ts';
import type { OutputChunk, Sandbox, Sandboxes } from '#sandbox/sandbox.ts';
import type { ConfigMap, Pod, Secret } from './schema/objects.ts';

/**
 * Pod semantics without a kubelet: a *manifest* is what a user wrote, checked; a *running pod* is one Pod of it, driven
 * through init containers, restarts, probes and termination on one sandbox. `parseManifests` is in `manifest.ts`,
 * `startPod` in `start-pod.ts`.
 */
export interface Manifest {
  /** In the order of the text; `metadata.namespace` and all other defaults are filled in. */
  readonly pods: readonly Pod[];
  /** Pods that need what podvm has not; the others run. */
  readonly refused: readonly RefusedPod[];
  readonly configMaps: readonly ConfigMap[];
  readonly secrets: readonly Secret[];
  /** Of what is ignored; it does not keep the pod from running. */
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
  /** Path as kubectl writes it: `spec.containers[0].imagee`. */
  readonly field: string;
  readonly message: string;
}

/** What a pod needs to know beside its own YAML. */
export interface PodConfig {
  /** Of every namespace; a pod sees those of its own. */
  readonly configMaps: readonly ConfigMap[];
  readonly secrets: readonly Secret[];
  readonly network: 'cni' | 'none';
  /** `spec.nodeName` of the downward API. */
  readonly nodeName: string;
  /** `status.hostIP` of the downward API. */
  readonly hostIP?: string;
  /** Domain of `subdomain` and `setHostnameAsFQDN`: `cluster.local`. */
  readonly clusterDomain?: string;
  /** Directory of `seccompProfile.localhostProfile`; without it such profiles are refused. */
  readonly seccompDirectory?: string;
  /** What a container without limits may use at most, for `resourceFieldRef`; default: 1 core and no memory limit. */
  readonly machine?: { readonly cpuMillis: number; readonly memoryBytes: number };
}

export interface PodParts {
  readonly sandboxes: Sandboxes;
  readonly log: Log;
  readonly clock: Clock;
}

export type PodPhase = 'Pending' | 'Running' | 'Succeeded' | 'Failed';

/** Kubernetes' PodStatus, as far as it has a meaning here; times are RFC 3339 in UTC. */
export interface PodStatus {
  readonly phase: PodPhase;
  /** Why, when the phase alone does not tell: `DeadlineExceeded`, `SandboxFailed`, `ErrImagePull`... */
  readonly reason?: string;
  readonly message?: string;
  /** Somebody asked for its end and it has not ended yet. */
  readonly isTerminating: boolean;
  readonly startTime: string;
  readonly podIPs: readonly string[];
  readonly conditions: readonly PodCondition[];
  /** In the order of the manifest: init containers and sidecars first. */
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
  /** Its startup probe, if it has one, has succeeded and its postStart hook is done. */
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

/** Kubernetes-like: Pulled, Created, Started, Unhealthy, BackOff, Killing, OOMKilled, Failed... */
export interface PodEvent {
  /** When it happened last. */
  readonly at: string;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  /** One printable line; what came from the guest is escaped. */
  readonly message: string;
  /** One sentence an operator can act on. */
  readonly fix?: string;
  /** How often it happened in a row; it is told once. */
  readonly count: number;
  readonly container?: string;
}

/** The newest so many events of a pod are kept. */
export const maxEvents = 500;

export interface PodFinish {
  /** First failing container's; 0 when all succeeded; 124 past its deadline, 125 when it could not be run at all. */
  readonly exitCode: number;
  /** `Completed`, `Error`, `OOMKilled`, `DeadlineExceeded`, `Terminated`, `ErrImagePull`, `SandboxFailed`... */
  readonly reason: string;
  /** One printable line, when there is more to say. */
  readonly message?: string;
}

export interface RunningPod {
  readonly namespace: string;
  readonly name: string;
  /** The Pod as it runs, with its uid and all defaults. */
  readonly pod: Pod;
  readonly uid: string;
  readonly createdAt: Date;
  /** A snapshot; changes are told by `onChange`. */
  readonly status: PodStatus;
  readonly events: readonly PodEvent[];
  /** The machine below; undefined until it is ready. */
  readonly sandbox: Sandbox | undefined;
  /** Each returns a function that ends the subscription. */
  onEvent(listener: (event: PodEvent) => void): () => void;
  onChange(listener: (status: PodStatus) => void): () => void;
  /**
   * Output of all containers over all their restarts, in order per container. Whoever subscribes in the same turn
   * as `startPod` returned misses nothing. A container waits while the promise of any listener is pending.
   */
  onOutput(listener: (container: string, chunk: OutputChunk) => Promise<void>): () => void;
  /** Settles once, when everything has ended, all output was delivered and the sandbox has stopped; never rejects. */
  readonly finished: Promise<PodFinish>;
  /**
   * preStop hooks, SIGTERM, after `graceSeconds` (default: the pod's) SIGKILL. A second call may only shorten the
   * time. Resolves when the pod has finished.
   */
  terminate(graceSeconds?: number): Promise<PodFinish>;
  /** SIGKILL at once. */
  kill(): Promise<PodFinish>;
  /** Kills what still runs and forgets it: the sandbox's directory and logs are gone. Idempotent. */
  remove(): Promise<void>;
}
