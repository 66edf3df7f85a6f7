import type { Log } from '#host/log.ts';
import type { Link, LinkOptions } from '#link/link.ts';
import type { Network } from '#network/network.ts';
import type { ScratchDisk } from '#storage/volumes.ts';
import type { MachineDriver } from '#vm/driver.ts';
import type { ContainerSpec } from './sandbox.ts';

/** What an image says of how to run it; absent where it says nothing. */
export interface ImageConfig {
  readonly entrypoint?: readonly string[] | undefined;
  readonly cmd?: readonly string[] | undefined;
  /** `NAME=value`. */
  readonly env?: readonly string[] | undefined;
  readonly workingDir?: string | undefined;
  /** `uid`, `uid:gid`, `name` or `name:group`. */
  readonly user?: string | undefined;
  readonly stopSignal?: string | undefined;
}

/** An image that cannot be removed while it is held. */
export interface HeldImage extends AsyncDisposable {
  /** Digest of the image's config, as `sha256:...`. */
  readonly id: string;
  readonly config: ImageConfig;
  /** The read-only EROFS file; on the file system of the sandboxes' directories, as it is hard-linked there. */
  readonly rootfsPath: string;
}

export interface ScratchDiskRequest {
  /** File to make; its directory exists. */
  readonly path: string;
  readonly sizeBytes: number;
  /** The VMM's user, who gets the file. */
  readonly ownerUid: number;
}

/** The lower layers, as a sandbox uses them. Each says its own errors. */
export interface Parts {
  readonly driver: MachineDriver;
  readonly network: Network;
  /** Pulls if the policy says so. Errors: `notFound` for `Never` and no such image. */
  holdImage(reference: string, policy: ContainerSpec['imagePullPolicy'], signal: AbortSignal): Promise<HeldImage>;
  makeScratchDisk(request: ScratchDiskRequest, signal: AbortSignal): Promise<ScratchDisk>;
  connectLink(options: LinkOptions, signal: AbortSignal): Promise<Link>;
}

/** Clocks and chance, given from outside. */
export interface Surroundings {
  readonly nowMs: () => number;
  readonly monotonicNs: () => bigint;
  readonly randomBytes: (count: number) => Uint8Array;
  readonly log: Log;
}
