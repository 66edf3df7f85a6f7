import type { ContainerParams } from '#wire/messages.ts';
import type { ContainerMount, MountMode, MountSource } from '../sandbox.ts';

export type HostMount = ContainerMount & { readonly source: Extract<MountSource, { readonly kind: 'host' }> };

/**
 * A way by which a path of the node comes into the guest, one file each (`share-mode.ts`, `kubelet-mode.ts`). They are
 * asked in the order in which `pod-steps.ts` names them; the last one takes every path.
 */
export interface HostMode {
  /**
   * Looks at what is at the path now, and holds on to it until it is disposed of. Undefined: this mode is not for it.
   * Errors: `notFound`, `unsupported`, `failedPrecondition`, saying why that cannot be mounted.
   */
  find(mount: HostMount, signal: AbortSignal): Promise<FoundSource | undefined>;
}

export interface FoundSource extends AsyncDisposable {
  readonly mode: MountMode;
  /** Mounts of one sandbox with the same mode and key share what is attached. */
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
