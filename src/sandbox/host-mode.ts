import type { ContainerParams } from './guest-calls.ts';
import type { ContainerMount, MountSource } from './sandbox.ts';

/**
 * The ways by which a path of the node comes into the guest, one file each (`share-mode.ts`). To add one: its name here,
 * its case in `hostModeOf`, its `HostMode` in `start-sandbox.ts`.
 */
export type HostModeName = 'share' | 'block';

export type HostMount = ContainerMount & { readonly source: Extract<MountSource, { readonly kind: 'host' }> };

export interface HostMode {
  /**
   * Looks at what is at the path now, and holds on to it until it is disposed of. Errors: `notFound`, `unsupported`,
   * `failedPrecondition`, saying why that cannot be mounted.
   */
  find(mount: HostMount, signal: AbortSignal): Promise<FoundSource>;
}

export interface FoundSource extends AsyncDisposable {
  /** Mounts of one sandbox with the same key share what is attached. */
  readonly key: string;
  /** Brings it into the guest as the volume of that name. Disposing of the result takes it away again. */
  attach(volume: string, signal: AbortSignal): Promise<AttachedSource>;
}

export type GuestMount = ContainerParams['mounts'][number];

export type GuestDevice = NonNullable<ContainerParams['devices']>[number];

/** Where the agent finds what is mounted; what it leaves out is as the mount itself says. */
export type GuestSource = Pick<GuestMount, 'volume'> & Partial<Pick<GuestMount, 'subPath' | 'readOnly'>>;

export interface AttachedSource extends AsyncDisposable {
  readonly guest: GuestSource;
}

/**
 * Decides by the path alone: what kubelet keeps for itself has places of its own, and a disk is handed over only where
 * the pod says so (`block-volumes.ts`).
 */
export function hostModeOf(path: string, blockPaths: ReadonlySet<string>): HostModeName {
  return blockPaths.has(path) ? 'block' : 'share';
}
