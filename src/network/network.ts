/**
 * What a network must offer. Words: an *attachment* is a sandbox's place in a network: a network namespace (*netns*)
 * of its own, a *tap* in it that becomes the machine's one NIC, and an interface made by the *chain*, a list of CNI
 * plugins. `network.conformance.ts` is the suite that every implementation passes.
 *
 *   preparing -> prepared -> connecting -> connected -> disposed
 *
 * The two steps are apart because a VMM needs netns and tap before it starts, and the chain's result only when the
 * guest is configured: `prepare` takes milliseconds, `connect` runs beside the machine's boot.
 */
export type NetworkMode = 'cni' | 'none';

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
  /** Among them `kubernetes.io/ingress-bandwidth` and `-egress-bandwidth`; told to plugins that ask. */
  readonly annotations?: Readonly<Record<string, string>>;
  /** The pod's own wishes, for plugins that answer for DNS. */
  readonly dns?: GuestDns;
}

export interface AttachmentRequest extends AttachmentOwner {
  /** Unique on this node; `[a-z0-9-]{1,40}`. */
  readonly sandboxId: string;
  /** `none`: a netns with loopback only, and no tap. */
  readonly mode: NetworkMode;
  /** The unprivileged user whose VMM will open the tap. */
  readonly tapOwnerUid: number;
}

export interface GuestInterface {
  /** Name the interface gets in the guest: `eth0`. */
  readonly name: string;
  /** What the guest must use as its own, in lower case: switches outside may know no other. */
  readonly mac: string;
  readonly mtu: number;
  /** With prefix length: `10.1.0.5/24`. A full-length prefix where the chain wants no on-link subnet. */
  readonly addresses: readonly string[];
}

export interface GuestRoute {
  /** `10.0.0.0/8`, `0.0.0.0/0`, `::/0`. */
  readonly destination: string;
  /** Absent: on-link. On-link routes come first in a list, as gateways may need them. */
  readonly gateway?: string;
}

export interface GuestDns {
  /** Addresses, none of them a loopback one. */
  readonly nameservers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

/** What the guest is configured with; plain JSON. */
export interface GuestNetwork {
  /** Empty when the mode is `none`. */
  readonly interfaces: readonly GuestInterface[];
  readonly routes: readonly GuestRoute[];
  /** The chain's, or else the node's. The pod's own wishes are merged by the caller. */
  readonly dns: GuestDns;
}

export interface Attachment extends AsyncDisposable {
  readonly sandboxId: string;
  /** Path of the network namespace for the VMM to run in. */
  readonly netns: string;
  /** The machine's NIC; absent when the mode is `none`. `mac` is asked of the chain, which may choose another. */
  readonly tap?: { readonly name: string; readonly mac: string };
  /**
   * Gives an attachment that was prepared for nobody yet to a pod. Errors: `alreadyExists` (a host port in use),
   * `invalid` (a host port or bandwidth that is none), `failedPrecondition` (connecting has begun).
   */
  assign(owner: AttachmentOwner): void;
  /**
   * For one that is nobody's yet: as much of `connect` as does not depend on whose it is. Nothing, where the chain is a
   * configuration of the node's own, which is told the pod's name. Where the node's network is another one by the time
   * the pod is known, `connect` moves over to it. Errors: as `connect`; dispose then.
   */
  connectAhead(signal: AbortSignal): Promise<void>;
  /**
   * Runs the chain, makes host ports, joins its interface with the tap. A second call gives the first one's result.
   * Errors: `failedPrecondition` (plugin or host tool missing), `unavailable` (a plugin says: try again),
   * `alreadyExists` (a host port in use), `timeout`, `cancelled`, `corrupt` (a plugin's answer makes no sense),
   * `internal` (a plugin failed). After an error, dispose.
   */
  connect(signal: AbortSignal): Promise<GuestNetwork>;
  /**
   * Undoes everything, also after a half-failed `connect`: the chain's DEL in reverse order, then the netns with its
   * tap. Idempotent, bounded. Throws when something is left; calling it again tries again, as does `collect`.
   */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Whether pods can be connected now, and how. */
export type NetworkReadiness =
  | {
      readonly isReady: true;
      /** Of the network. */
      readonly name: string;
      /** Path of the configuration; undefined: the network of our own, as nothing else is configured. */
      readonly path: string | undefined;
    }
  | { readonly isReady: false; readonly message: string; readonly fix: string | undefined };

/** What the plugins that connected a pod say of its attachment when they are asked (CNI's CHECK). */
export interface AttachmentCheck {
  readonly sandboxId: string;
  readonly podName: string;
  readonly podNamespace: string;
  /** Name of the network. */
  readonly network: string;
  /** `unasked`: the network does not offer it, or there was no time. */
  readonly verdict: 'well' | 'wrong' | 'unasked';
  /** Which plugins were asked, or what the first one says that finds something wrong, or why none was asked. */
  readonly detail: string;
  /** `forged` of `Network.dropped`; `unfiltered`: none can be dropped, though the network would. */
  readonly droppedFrames?: number | 'unfiltered';
}

export interface Network {
  /** What would be used for a pod that came now; looked up anew at each call. */
  readiness(): Promise<NetworkReadiness>;
  /**
   * Makes netns and tap, both up. On any error nothing is left. Errors: `alreadyExists` (the sandbox has an
   * attachment), `failedPrecondition` (not root, a host tool or /dev/net/tun missing), `invalid`, `cancelled`.
   */
  prepare(request: AttachmentRequest, signal: AbortSignal): Promise<Attachment>;
  /** The attachment an earlier process made, by its record; undefined if there is none. Connected ones stay so. */
  adopt(sandboxId: string, signal: AbortSignal): Promise<Attachment | undefined>;
  /**
   * Disposes of every attachment whose sandbox is not in `keep`: what a killed process left. Returns their ids;
   * one that cannot be disposed of is logged, kept on record for the next call, and not in the list.
   */
  collect(keep: ReadonlySet<string>, signal: AbortSignal): Promise<readonly string[]>;
  /**
   * What was dropped of what a pod sent, by the reason: frames that no pod may send (`forged`: for what they say of their
   * sender, or as they speak for the network), where they are looked at, and packets that the node has refused
   * (`loopback`, `connections`, `services`). Undefined on a configured network, which has means of its own.
   */
  dropped(sandboxId: string, signal: AbortSignal): Promise<ReadonlyMap<string, number> | undefined>;
  /**
   * Packets from all pods of the built-in network that the node has refused, by the reason; empty where it refuses none,
   * undefined while there is no such network.
   */
  droppedPackets(signal: AbortSignal): Promise<ReadonlyMap<string, number> | undefined>;
  /**
   * Has the plugins look at every attachment that they have connected, whichever process it is of, one after the other.
   * Changes none, and nothing may be decided by it: plugins have been known to be wrong. One that is being removed just
   * then may be told as `wrong`. What an abort leaves unlooked at is `unasked`.
   */
  check(signal: AbortSignal): Promise<readonly AttachmentCheck[]>;
}
