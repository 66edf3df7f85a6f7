/**
 * Interface of a network. Words: an *attachment* is a sandbox's place in a network: a network namespace (*netns*) of
 * its own, a *tap* in it that becomes the machine's one NIC, and an interface made by the *chain*, a list of CNI
 * plugins. `network.conformance.ts` is the suite that every implementation passes.
 *
 *   preparing -> prepared -> connecting -> connected -> disposed
 *
 * The two steps are separate because a VMM needs netns and tap before it starts, and the chain's result only when the
 * guest is configured: `prepare` takes milliseconds, `connect` runs beside the machine's boot.
 */
export type NetworkMode = 'cni' | 'given' | 'none';

export interface HostPort {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  /** Address of the host to listen on; absent: all. */
  readonly hostIP?: string;
}

/** The pod that an attachment is for. */
export interface AttachmentOwner {
  readonly podName: string;
  readonly podNamespace: string;
  readonly podUid: string;
  readonly hostPorts: readonly HostPort[];
  /** Passed to plugins that ask; may hold `kubernetes.io/ingress-bandwidth` and `-egress-bandwidth`. */
  readonly annotations?: Readonly<Record<string, string>>;
  /** The pod's own DNS settings, for plugins that serve DNS. */
  readonly dns?: GuestDns;
  /** With the mode `given`: path of the netns. */
  readonly netns?: string;
}

export interface AttachmentRequest extends AttachmentOwner {
  /** Unique on this node; `[a-z0-9-]{1,40}`. */
  readonly sandboxId: string;
  /**
   * `given`: another program has made the netns and connected it, by an interface `eth0`, and removes it later. `none`: a
   * netns with loopback only, and no tap.
   */
  readonly mode: NetworkMode;
  /** The unprivileged user whose VMM will open the tap. */
  readonly tapOwnerUid: number;
}

export interface GuestInterface {
  /** Name the interface gets in the guest: `eth0`. */
  readonly name: string;
  /** The MAC that the guest must use, in lower case: switches outside may know no other. */
  readonly mac: string;
  readonly mtu: number;
  /** With prefix lengths: `10.1.0.5/24`. A full-length prefix where the chain wants no on-link subnet. */
  readonly addresses: readonly string[];
}

export interface GuestRoute {
  /** `10.0.0.0/8`, `0.0.0.0/0`, `::/0`. */
  readonly destination: string;
  /** Absent: on-link. On-link routes come first in a list, as gateways may need them. */
  readonly gateway?: string;
}

export interface GuestDns {
  /** Addresses, never loopback. */
  readonly nameservers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

/** The guest's network configuration; plain JSON. */
export interface GuestNetwork {
  /** Empty when the mode is `none`. */
  readonly interfaces: readonly GuestInterface[];
  readonly routes: readonly GuestRoute[];
  /** The chain's, otherwise the node's. The caller merges the pod's own settings. */
  readonly dns: GuestDns;
}

export interface Attachment extends AsyncDisposable {
  readonly sandboxId: string;
  /** Path of the network namespace for the VMM to run in. */
  readonly netns: string;
  /** The machine's NIC; absent when the mode is `none`. The chain is asked for `mac` and may choose another. */
  readonly tap?: { readonly name: string; readonly mac: string };
  /**
   * Assigns an attachment that was prepared ahead to a pod. One with the mode `cni` whose owner has a netns becomes `given`:
   * `connect` moves its tap there. Errors: `alreadyExists` (a host port in use), `invalid`
   * (a host port or bandwidth is not valid), `failedPrecondition` (connecting has begun).
   */
  assign(owner: AttachmentOwner): void;
  /**
   * Before a pod is assigned: does the part of `connect` that does not depend on the pod. Does nothing when the chain is
   * configured on the node, since its plugins need the pod's name. When the node's network has changed by the time the pod
   * is known, `connect` moves to the new one. Errors: as `connect`; dispose then.
   */
  connectAhead(signal: AbortSignal): Promise<void>;
  /**
   * Runs the chain, makes host ports, joins its interface with the tap. A second call returns the first one's result.
   * Errors: `failedPrecondition` (plugin or host tool missing), `unavailable` (a plugin says: try again),
   * `alreadyExists` (a host port in use), `timeout`, `cancelled`, `corrupt` (a plugin's answer is not valid),
   * `internal` (a plugin failed). After an error, dispose.
   */
  connect(signal: AbortSignal): Promise<GuestNetwork>;
  /**
   * Undoes everything, also after a half-failed `connect`: the chain's DEL in reverse order, then the netns with its tap.
   * Idempotent, bounded. Throws when something is left; calling it again tries again, as does `collect`.
   */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Whether and how pods can be connected now. */
export type NetworkReadiness =
  | {
      readonly isReady: true;
      /** Name of the network. */
      readonly name: string;
      /** Path of the configuration; undefined for the built-in network, used when none is configured. */
      readonly path: string | undefined;
    }
  | { readonly isReady: false; readonly message: string; readonly fix: string | undefined };

/** The bridge of the built-in network. */
export interface BuiltInBridge {
  /** Name of the interface. */
  readonly bridge: string;
  /** IPv4 address of the node on it. */
  readonly gateway: string;
}

/** A running pod, identified by a process in its netns. */
export interface ConnectedPod {
  readonly sandboxId: string;
  readonly pid: number;
}

/** Result of CNI's CHECK: the report of the plugins that connected a pod on its attachment. */
export interface AttachmentCheck {
  readonly sandboxId: string;
  readonly podName: string;
  readonly podNamespace: string;
  /** Name of the network. */
  readonly network: string;
  /** `unasked`: the network has no CHECK, or not checked: no time was left. */
  readonly verdict: 'well' | 'wrong' | 'unasked';
  /** Names of the plugins that ran, the first error that one reports, or the reason why none ran. */
  readonly detail: string;
  /** `forged` of `Network.dropped`; `unfiltered` when the kernel cannot filter frames. */
  readonly droppedFrames?: number | 'unfiltered';
}

export interface Network {
  /** The network that a new pod would use; looked up at each call. */
  readiness(): Promise<NetworkReadiness>;
  /**
   * The bridge that a new pod would be connected to, made if it is missing; undefined when another network is configured.
   * Errors: those of the network.
   */
  builtIn(signal: AbortSignal): Promise<BuiltInBridge | undefined>;
  /**
   * Makes netns and tap, both up. Leaves nothing after an error. Errors: `alreadyExists` (the sandbox has an attachment),
   * `failedPrecondition` (not root, a host tool or /dev/net/tun missing), `invalid`, `cancelled`.
   */
  prepare(request: AttachmentRequest, signal: AbortSignal): Promise<Attachment>;
  /** The attachment that an earlier process made, from its record; undefined without one. Connected ones stay connected. */
  adopt(sandboxId: string, signal: AbortSignal): Promise<Attachment | undefined>;
  /**
   * Disposes of every attachment whose sandbox is not in `keep`, such as those of a killed process. Returns their ids;
   * one that cannot be disposed of is logged, kept on record for the next call, and not returned. `mend` tries it again.
   */
  collect(keep: ReadonlySet<string>, signal: AbortSignal): Promise<readonly string[]>;
  /**
   * Counts, by reason, what a pod sent and was dropped: filtered frames (`forged`: a false sender, or acting for the
   * network), and packets that the node refused (`loopback`, `connections`, `services`). On a configured network only
   * `loopback` is counted, in frames; the rest is that network's. Undefined where nothing is counted. `maxAgeMs`: how old
   * the count may be; default: 0. To count for one pod takes as long as for many.
   */
  dropped(sandboxId: string, signal: AbortSignal, maxAgeMs?: number): Promise<ReadonlyMap<string, number> | undefined>;
  /**
   * Counts by reason the packets from all pods of the built-in network that the node refused; empty when it refuses none,
   * undefined while there is no such network.
   */
  droppedPackets(signal: AbortSignal): Promise<ReadonlyMap<string, number> | undefined>;
  /**
   * Checks the network of these pods, which this process runs, and restores parts that others have removed: the name of
   * a netns, links, queues and filters, the bridge, and the node's rules. Returns, by sandbox id, why a pod is
   * disconnected for good. Other failures are logged, and the next call tries again. Also begins to remove what `collect`
   * could not, from time to time.
   */
  mend(pods: readonly ConnectedPod[], signal: AbortSignal): Promise<ReadonlyMap<string, string>>;
  /**
   * Runs the plugins' CHECK for every attachment of any process, one after the other. Changes nothing; no decision must
   * depend on the result, since plugins are known to be wrong. An attachment that is being removed may be reported as
   * `wrong`, and one not reached before an abort as `unasked`.
   */
  check(signal: AbortSignal): Promise<readonly AttachmentCheck[]>;
}
