import type { MetricFigures } from '#wire/figures.ts';

/** What was seen, or why it could not be. The reason may be the guest's: only `printable` shows it. */
export type Seen<T> = { readonly value: T } | { readonly why: string };

/** A pod's sandbox at one moment, from outside and inside. What the guest says is checked and bounded, but may be false. */
export interface Examination {
  /** Time until the agent answered, in `ms`. Without an answer the guest is not asked further. */
  readonly answer: Seen<number>;
  readonly guest: Seen<GuestView>;
  readonly figures: Seen<MetricFigures>;
  readonly containers: readonly ExaminedContainer[];
  /** Host ports of the pod that no process holds for it. */
  readonly lostPorts: readonly string[];
  /** Frames and packets of the guest that the host has dropped, by reason. */
  readonly dropped: Seen<ReadonlyMap<string, number> | undefined>;
}

export interface GuestView {
  /** How far the guest's clock is ahead of the host's, in `ms`, and by how much that may be wrong. */
  readonly clockAheadMs: number;
  readonly clockErrorMs: number;
  readonly addresses: ReadonlySet<string>;
  readonly gateways: readonly { readonly address: string; readonly outcome: GatewayOutcome }[];
  readonly nameservers: readonly {
    readonly address: string;
    readonly name: string;
    readonly answer: Seen<DnsAnswer>;
  }[];
  /** Percent of the last 10 s in which tasks waited; undefined where the kernel does not measure it. */
  readonly pressure: Readonly<Record<'cpu' | 'memory' | 'io', number | undefined>>;
  readonly volumes: readonly { readonly name: string; readonly space: Space }[];
}

/** `quiet`: it neither answered nor refused, which a firewall may cause. */
export type GatewayOutcome = 'reached' | 'unreachable' | 'quiet';

export interface DnsAnswer {
  /** `NOERROR`, or the server's error; undefined: it answered with something else. */
  readonly outcome: string | undefined;
  readonly ms: number;
}

export interface Space {
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly totalInodes: number;
  readonly freeInodes: number;
}

export interface ExaminedContainer {
  readonly name: string;
  readonly oomKills: Seen<number>;
  /** What it has written outside of its volumes, and may; undefined without a limit. */
  readonly layer: Seen<LayerRoom | undefined>;
  readonly mounts: Seen<readonly ExaminedMount[]>;
}

export interface LayerRoom {
  readonly bytes: number;
  readonly limitBytes: number;
}

export interface ExaminedMount {
  readonly mountPath: string;
  /** The sandbox's `MountMode`. */
  readonly mode: string;
  readonly isWantedReadOnly: boolean;
  readonly inGuest: 'absent' | 'readOnly' | 'writable';
  /** Volume of the guest that it mounts. */
  readonly volume: string;
  /** For a path of the host that a file server gives to the guest. */
  readonly served?: {
    readonly path: string;
    readonly server: 'running' | 'stopped' | 'gone';
    /** Age of the oldest request that the server has not finished, in seconds; 0 without one. */
    readonly oldestSeconds: number;
    /** Mean time of its requests while it was examined, but locks and closing, in seconds; 0 without one. */
    readonly meanSeconds: number;
    /** Space of the host's file system. */
    readonly space: Seen<Space>;
  };
}
