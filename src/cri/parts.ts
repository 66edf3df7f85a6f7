import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { ImageStore } from '#image/images.ts';
import type { Sandboxes } from '#sandbox/sandbox.ts';
import type { Events } from './events.ts';
import type { KnownPods } from './known-pods.ts';
import type { PodStarts } from './pod-starts.ts';
import type { Credentials } from './credentials.ts';
import type { StreamingServer } from './streaming/streaming.ts';

/** Parts that the verbs use. */
export interface CriParts {
  readonly sandboxes: Pick<Sandboxes, 'run' | 'list'>;
  readonly images: ImageStore;
  readonly streaming: Omit<StreamingServer, 'baseUrl' | keyof AsyncDisposable>;
  /** Returns whether a new pod could be connected; evaluated at each call. */
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
  /** Version of podvm. */
  readonly version: string;
  /** State directory of the images. Its file system also holds containers. */
  readonly imagesDirectory: string;
  /** Details for verbose `Status` requests, as plain values. */
  readonly facts: Readonly<Record<string, string | number | boolean>>;
}
