import type { Duplex, Readable, Writable } from 'node:stream';
import type { GuestText } from '#base/guest-text.ts';
import type { PartVersions } from '#host/assets.ts';
import type { RegistryLogin } from '#image/logins.ts';
import type { ContainerSecurity } from './spec/container-security.ts';
import type { Examination } from './figures/examination.ts';
import type { HostFigures } from './figures/host-figures.ts';
import type { SandboxCounts } from './figures/node-counts.ts';
import type { StartPhase } from './state/phases.ts';
import type { SandboxMetrics, SandboxStats } from './figures/sandbox-stats.ts';
import type { TemplateChoice } from './spec/template-choice.ts';
import type { UserNamespace } from './spec/user-namespace.ts';

/**
 * A *sandbox* is what runs one pod: one machine plus its containers. This layer joins machine, image, network, storage
 * and link; it knows nothing of YAML, restart policies or probes (`pod/` does) and nothing of gRPC or HTTP.
 *
 *   creating -> ready -> stopping -> stopped
 *       \_________\___________\____> failed
 *
 * `ready`: containers can be created. `stopped` and `failed` no longer own any process, netns, tap, mount or disk; their
 * records and logs stay until `remove`.
 */
export const sandboxMoves = {
  creating: ['ready', 'stopping', 'failed'],
  ready: ['stopping', 'failed'],
  stopping: ['stopped', 'failed'],
  stopped: [],
  failed: [],
} as const satisfies Record<string, readonly string[]>;
export type { RegistryLogin };
export type SandboxState = keyof typeof sandboxMoves;

export const containerMoves = {
  creating: ['created', 'exited'],
  created: ['running', 'exited'],
  running: ['exited'],
  exited: [],
} as const satisfies Record<string, readonly string[]>;
export type ContainerState = keyof typeof containerMoves;

export interface HostPort {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly hostIP?: string;
}

/** A file of a push volume; `path` is relative, `/`-separated, without `..`. */
export interface VolumeFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  /** Permission bits, such as 0o644. */
  readonly mode: number;
  /** Owner; default root, and the pod's `fsGroup`. */
  readonly uid?: number;
  readonly gid?: number;
}

export type SandboxVolume =
  | { readonly name: string; readonly kind: 'scratch'; readonly sizeLimitBytes?: number }
  | { readonly name: string; readonly kind: 'tmpfs'; readonly sizeLimitBytes?: number }
  | { readonly name: string; readonly kind: 'push'; readonly files: readonly VolumeFile[] };

/** Limits, of which undefined ones are only the machine's own, and requests. */
export interface Resources {
  readonly memoryLimitBytes?: number;
  /** What the node has promised: it decides nothing here. Of a kubelet's pod, each container has its own. */
  readonly memoryRequestBytes?: number;
  /** Thousandths of a core. */
  readonly cpuLimitMillis?: number;
  readonly cpuRequestMillis?: number;
  readonly pidsLimit?: number;
  /** Limit of a container's writable layer, or of a sandbox's scratch disk, in bytes. */
  readonly ephemeralStorageBytes?: number;
  /** Score for the host's OOM killer, for a sandbox, -1000 to 1000; default 1000, as for a pod without requests. */
  readonly oomScoreAdj?: number;
}

/** Limits to change while something runs: undefined ones stay, `none` removes one. */
export type LimitChange = Omit<Resources, 'memoryLimitBytes' | 'cpuLimitMillis'> & {
  readonly memoryLimitBytes?: number | 'none';
  readonly cpuLimitMillis?: number | 'none';
};

export interface SandboxSpec {
  readonly namespace: string;
  readonly name: string;
  /** The pod's uid (UUID). */
  readonly uid: string;
  /**
   * Counts the sandboxes of one pod. If given, uid and attempt are part of the name: a kubelet makes the next sandbox, or
   * the next pod of the name, before it removes the previous one. Undefined: one sandbox per namespace and name.
   */
  readonly attempt?: number;
  /**
   * Whether it outlives its process: the next one that opens the state directory takes it over. Otherwise it ends with
   * its process, or the next process ends it.
   */
  readonly isKept?: boolean;
  /** Service that asks the next process for a kept pod; default `cri`. */
  readonly keptFor?: 'cri' | 'containerd' | 'podvm';
  /** Whether it is for one container that is no part of a pod, such as that of `ctr run`. */
  readonly isSingle?: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly hostname: string;
  /** Names of the pod's addresses in its /etc/hosts, the full one first; absent: its hostname. */
  readonly names?: readonly string[];
  /** `given`: another program has connected the netns. */
  readonly network: 'cni' | 'given' | 'none';
  /** With the network `given`: path of the netns, which stays when the sandbox ends. */
  readonly netns?: string;
  /**
   * Pods with which its machine shares memory pages and the kernel's random choices at boot, as they are restored from
   * the same template. `off`: none, since the machine boots by itself.
   */
  readonly template: TemplateChoice;
  /** Images of its containers: those that are present are plugged while the sandbox starts. */
  readonly images: readonly string[];
  readonly hostPorts: readonly HostPort[];
  /** Whether a container has an SCTP port, on the host or not: the guest's kernel only loads SCTP on request. */
  readonly sctp: boolean;
  /** DNS settings that are merged into the pod's resolv.conf by `dnsPolicy`. */
  readonly dns: {
    readonly policy: 'Default' | 'ClusterFirst' | 'ClusterFirstWithHostNet' | 'None';
    readonly nameservers: readonly string[];
    readonly searches: readonly string[];
    readonly options: readonly string[];
  };
  readonly hostAliases: readonly { readonly ip: string; readonly hostnames: readonly string[] }[];
  /** Cgroup of the pod on the host, relative to the root of cgroups, which a kubelet makes; absent: podvm's own. */
  readonly cgroupParent?: string;
  readonly sysctls: Readonly<Record<string, string>>;
  readonly sharePidNamespace: boolean;
  /** Undefined: its containers use the users of its machine. */
  readonly userNamespace?: UserNamespace;
  readonly fsGroup?: number;
  readonly volumes: readonly SandboxVolume[];
  /** Sum over the pod; sizes the machine and the pod's cgroup. */
  readonly resources: Resources;
}

/**
 * Source of a mount. `volume`: one of the sandbox's volumes, by name. `host`: a path of the node, which CRI only names per
 * container; its mode depends on what is there. `image`: the content of an OCI image, read-only.
 */
export type MountSource =
  | { readonly kind: 'volume'; readonly name: string }
  | {
      readonly kind: 'host';
      /** Absolute. */
      readonly path: string;
      /** Whether mounts that the node makes below it appear in the container; the reverse is not possible. */
      readonly propagation: 'private' | 'hostToContainer' | 'bidirectional';
      /** Whether a file system that its machine mounts grows to the size of its disk before. */
      readonly fillsDisk?: true;
    }
  | {
      readonly kind: 'image';
      readonly image: string;
      readonly pullPolicy: 'Always' | 'IfNotPresent' | 'Never';
      /** Default: the node's. */
      readonly pullLogins?: readonly RegistryLogin[];
    };

export interface ContainerMount {
  readonly source: MountSource;
  readonly mountPath: string;
  /** Path below the source; relative, without `..`. */
  readonly subPath?: string;
  readonly readOnly: boolean;
  /** Whether other mounts below it are read-only, too; default true; only with `readOnly`. */
  readonly recursiveReadOnly?: boolean;
}

/** A block device or image file of the node, as a device of the container. */
export interface ContainerDevice {
  /** Absolute path on the node. */
  readonly hostPath: string;
  readonly devicePath: string;
  readonly readOnly: boolean;
}

export interface ContainerSpec {
  readonly name: string;
  /** Counts restarts from 0; name and attempt together are unique in a sandbox. */
  readonly attempt: number;
  readonly image: string;
  /**
   * Directories or EROFS files of the node that make up its root file system, topmost first, which do not change. Then `image` is only a
   * name, and nothing of its config is used. Undefined: the image's.
   */
  readonly rootfs?: readonly string[];
  readonly imagePullPolicy: 'Always' | 'IfNotPresent' | 'Never';
  /** Registry logins that are tried before the node's. */
  readonly pullLogins?: readonly RegistryLogin[];
  /** Replaces the image's entrypoint; undefined keeps it. */
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly workingDir?: string;
  readonly env: readonly { readonly name: string; readonly value: string }[];
  readonly mounts: readonly ContainerMount[];
  readonly devices?: readonly ContainerDevice[];
  readonly security: ContainerSecurity;
  readonly resources: Resources;
  /** Whether it has pids of its own in a sandbox with `sharePidNamespace`. */
  readonly ownPidNamespace?: boolean;
  /** Id of a running container of the sandbox whose pids it shares. */
  readonly pidNamespaceOf?: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  /** Undefined: the container leaves no message. */
  readonly terminationMessagePath?: string;
  /** -1000 to 1000; undefined: the kernel's default. */
  readonly oomScoreAdj?: number;
  /**
   * Absolute path of its log, outside of the sandbox's directory. The caller rotates (by `rename` and `reopenLog`) and
   * removes it. Undefined: a log in the sandbox's directory.
   */
  readonly logPath?: string;
  /** FIFOs that get its output, instead of a log. */
  readonly outputFifos?: OutputFifos;
}

/** Absolute paths of FIFOs, from which a client reads a container's output; undefined: the client does not read it. */
export interface OutputFifos {
  readonly stdout?: string;
  readonly stderr?: string;
}

export interface ContainerExit {
  readonly exitCode: number;
  readonly signal?: number;
  /** Kubernetes' words. */
  readonly reason: 'Completed' | 'Error' | 'OOMKilled' | 'StartError' | 'SandboxFailed';
  /** The runtime's reason: why it could not start, or how its machine was lost. Printable. */
  readonly why?: string;
  /** Text of its termination log; with `SandboxFailed` the last known one. */
  readonly message?: GuestText;
  readonly finishedAt: Date;
}

/**
 * Way in which a volume reaches the guest: a directory of the scratch disk, memory, files that are sent, a shared path
 * of the node, an image's disk, or a disk of its own.
 */
export type MountMode = SandboxVolume['kind'] | 'share' | 'image' | 'block';

export interface MountStatus {
  readonly mountPath: string;
  readonly mode: MountMode;
}

export interface ContainerStatus {
  readonly id: string;
  readonly name: string;
  readonly attempt: number;
  readonly state: ContainerState;
  readonly image: string;
  readonly imageId: string;
  readonly createdAt: Date;
  readonly startedAt?: Date;
  /** User and groups as its image resolves them; present once it is created. */
  readonly user?: { readonly uid: number; readonly gid: number; readonly groups: readonly number[] };
  /** Present once it is created. */
  readonly mounts: readonly MountStatus[];
  readonly exit?: ContainerExit;
  readonly logPath: string;
}

/** One piece of a container's output, as received. */
export interface OutputChunk {
  readonly stream: 'stdout' | 'stderr';
  readonly bytes: Uint8Array;
}

export interface Container {
  readonly status: ContainerStatus;
  /** A second call has the first one's result. Errors: `failedPrecondition` for a container that ended before. */
  start(signal: AbortSignal): Promise<void>;
  /** Settles once, also when the machine dies; never rejects. */
  readonly exited: Promise<ContainerExit>;
  /** Sends a signal by number; no error for a container that has exited. */
  kill(signalNumber: number, signal: AbortSignal): Promise<void>;
  /** SIGTERM (or the image's StopSignal), SIGKILL after `graceMs`; waits until it has exited. */
  stop(graceMs: number, signal: AbortSignal): Promise<ContainerExit>;
  exec(exec: ExecSpec, signal: AbortSignal): Promise<Exec>;
  /** Its standard input, shared by all writers; absent without stdin in its spec. */
  readonly stdin: Writable | undefined;
  /** Size of its terminal, from its creation on; does nothing without one. */
  resize(columns: number, rows: number, signal: AbortSignal): Promise<void>;
  /** Its limits, as far as the node has them. */
  readonly resources: Resources;
  /** Sentences about differences from its spec: limits above what the node has. */
  readonly warnings: readonly string[];
  /**
   * Changes its limits while it runs; undefined ones stay. Returns sentences about limits that were reduced to what the node
   * has. Errors: `invalid`, `failedPrecondition`.
   */
  update(change: LimitChange, signal: AbortSignal): Promise<readonly string[]>;
  /** Continues in a new file of the log's name, after the caller has renamed the old one. Errors: `failedPrecondition`. */
  reopenLog(): Promise<void>;
  /**
   * Passes every byte of later output, in order, to `onChunk`; the container's output waits while the returned promise is
   * pending. Ends when the container's output ends. Returns a function that stops following.
   */
  follow(onChunk: (chunk: OutputChunk) => Promise<void>): { readonly ended: Promise<void>; stop(): void };
  /** Removes it from the guest; its log stays. The container must have exited. */
  remove(signal: AbortSignal): Promise<void>;
}

export interface ExecSpec {
  readonly command: readonly string[];
  /** Added to the container's variables: `NAME=value`. */
  readonly env?: readonly string[];
  /** Default: the container's. */
  readonly workingDir?: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly columns?: number;
  readonly rows?: number;
}

export interface Exec {
  /** Ended by the caller; closes the process's standard input. Absent when the spec has no stdin. */
  readonly stdin?: Writable;
  readonly stdout: Readable;
  /** Absent with a tty. */
  readonly stderr?: Readable;
  resize(columns: number, rows: number): Promise<void>;
  kill(signalNumber: number): Promise<void>;
  readonly exited: Promise<{ readonly exitCode: number }>;
}

export interface SandboxStatus {
  readonly id: string;
  readonly state: SandboxState;
  readonly createdAt: Date;
  readonly addresses: readonly string[];
  /** Versions of the parts that its machine was made from: the newest ones at that time. */
  readonly parts: PartVersions;
  readonly accelerator?: 'kvm' | 'tcg';
  readonly vmmPid?: number;
  readonly failure?: string;
  /** Whether its machine is frozen (`setPaused`). */
  readonly isPaused?: true;
  /** Why this process can only end it: another podvm made it, in a way that this one does not know. */
  readonly leftAlone?: string;
  /** Timeline of the start, phase by phase, in `ms`. */
  readonly phases: readonly StartPhase[];
  readonly containers: readonly ContainerStatus[];
  readonly volumes: readonly { readonly name: string; readonly mode: string }[];
}

export interface Sandbox {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly status: SandboxStatus;
  /** That of its status, which is made at each access. */
  readonly state: SandboxState;
  /** File with the guest's serial console, if that is kept in one. */
  readonly consolePath: string;
  /** The last lines of the guest's serial console, from memory or from the file; empty without any. */
  consoleTail(lines: number): Promise<readonly GuestText[]>;
  /** Settles once when the sandbox is `stopped` or `failed` and everything it owned is gone; never rejects. */
  readonly ended: Promise<SandboxStatus>;
  /** Pulls the image if its policy says so; returns when the container exists and can be started. */
  createContainer(spec: ContainerSpec, signal: AbortSignal): Promise<Container>;
  container(name: string): Container | undefined;
  /** Containers that are not removed, oldest first. */
  readonly containers: readonly Container[];
  /** The pod's limits now. */
  readonly resources: Resources;
  /** Sentences about differences from its spec: limits above what the node has. */
  readonly warnings: readonly string[];
  /**
   * Changes the pod's limits while it runs. Returns sentences about limits that were reduced to its machine's size. Errors:
   * `invalid`, `failedPrecondition`.
   */
  resize(change: LimitChange, signal: AbortSignal): Promise<readonly string[]>;
  updateVolume(name: string, files: readonly VolumeFile[], signal: AbortSignal): Promise<void>;
  /**
   * Freezes its machine, or lets it run again; does nothing if it is so already. What needs the guest fails with `unavailable`
   * meanwhile. Ends when the sandbox is stopped, or left to the next process. Errors: `failedPrecondition`.
   */
  setPaused(isPaused: boolean): Promise<void>;
  /** A TCP connection to a port on 127.0.0.1 in the guest (or on one of its addresses). */
  dial(port: number, address: string | undefined, signal: AbortSignal): Promise<Duplex>;
  stats(signal: AbortSignal): Promise<SandboxStats>;
  /** All figures of the guest, for the pod and each running container: more than `stats`, and slower. */
  metrics(signal: AbortSignal): Promise<SandboxMetrics>;
  /** Sets the one listener, which gets a sentence when the host fails a disk, such as on a full file system. */
  onDiskTrouble(listener: (trouble: string) => void): void;
  /** Memory of its VMM on the host, with a share of shared pages. The kernel walks page tables for it: milliseconds. */
  vmmPssKiB(): Promise<number>;
  /** Resources that the host spends on it, measured without its guest. */
  hostFigures(signal: AbortSignal): Promise<HostFigures>;
  /** Counts, by reason, the frames and packets from its guest that its network has dropped; see `Network.dropped`. */
  dropped(signal: AbortSignal, maxAgeMs?: number): Promise<ReadonlyMap<string, number> | undefined>;
  /** Looks at it from outside and inside, within seconds even if its guest hangs. Errors: `failedPrecondition`. */
  examine(signal: AbortSignal): Promise<Examination>;
  /** Stops what still runs (containers get `graceMs`), then the machine, then everything else. Idempotent. */
  stop(graceMs: number): Promise<SandboxStatus>;
  /**
   * Removes a stopped or failed sandbox with its directory and logs. Stops it first if needed. After an error, it is tried
   * again from time to time, and by the next call.
   */
  remove(): Promise<void>;
}

export interface Sandboxes {
  /**
   * Makes a sandbox and returns when it is `ready`. Errors: `alreadyExists` for a namespace/name in use, `invalid`,
   * `exhausted`, and those of machine, network and storage. Leaves nothing after an error.
   */
  run(spec: SandboxSpec, signal: AbortSignal): Promise<Sandbox>;
  list(): readonly Sandbox[];
  /** Machines that wait for a pod. */
  readonly waitingMachines: number;
  /** Memory that the node keeps available, in bytes: a pod that would leave less is refused. */
  readonly memoryReserveBytes: number;
  /** Starts in progress. */
  readonly starting: number;
  readonly counts: SandboxCounts;
  /** When the node's template was made; undefined without one. */
  templateMadeAt(): Promise<Date | undefined>;
  get(namespace: string, name: string): Sandbox | undefined;
}
