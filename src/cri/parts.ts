import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log.ts';
import type { ImageStore } from '#image/images.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import type { Events } from './events.ts';
import type { KnownPods } from './known-pods.ts';
import type { PodStarts } from './pod-starts.ts';
import type { Credentials } from './credentials.ts';
import type { StreamingServer } from './streaming/streaming.ts';

/** What the verbs work with. */
export interface CriParts {
  readonly sandboxes: Pick<Sandboxes, 'run'>;
  readonly images: ImageStore;
  readonly streaming: Pick<StreamingServer, 'execUrl' | 'attachUrl' | 'portForwardUrl'>;
  /** Whether a pod that came now could be connected, looked up anew at each call. */
  readonly networkReadiness: () => Promise<NetworkReadiness>;
  readonly pods: KnownPods;
  readonly starts: PodStarts;
  readonly events: Events;
  readonly credentials: Credentials;
  readonly clock: Clock;
  readonly log: Log;
  readonly node: NodeFacts;
}

export type NetworkReadiness =
  | { readonly isReady: true; readonly name: string }
  | { readonly isReady: false; readonly message: string; readonly fix: string | undefined };

export interface NodeFacts {
  /** Of podvm. */
  readonly version: string;
  /** State directory of the images, and so the file system that both images and containers fill. */
  readonly imagesDirectory: string;
  /** For `Status`, verbose: what an operator would ask for, as plain values. */
  readonly facts: Readonly<Record<string, string | number | boolean>>;
}
