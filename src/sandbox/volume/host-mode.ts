import type { FileServerRecord } from '#storage/file-server.ts';
import type { BlockDiskRecord } from './block-disks.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { ContainerMount, MountMode, MountSource } from '../sandbox.ts';

export type HostMount = ContainerMount & { readonly source: Extract<MountSource, { readonly kind: 'host' }> };

/**
 * A way by which a path of the node reaches the guest, one file each (`share-mode.ts`, `kubelet-mode.ts`). Modes are
 * tried in the order of `pod-steps.ts`; the last one accepts every path.
 */
export interface HostMode {
  /**
   * Opens the source at the path, and holds it until disposed of. Undefined: another mode is responsible.
   * Errors: `notFound`, `unsupported`, `failedPrecondition`, saying why it cannot be mounted.
   */
  find(mount: HostMount, signal: AbortSignal): Promise<FoundSource | undefined>;
  /**
   * Takes over a source that an earlier process attached. Undefined: another mode attached it. Absent: this mode cannot
   * take over. Errors: the reason why it cannot be taken over; the source then ends with the machine.
   */
  adopt?(held: HeldSource, signal: AbortSignal): Promise<AttachedSource | undefined>;
}

export interface FoundSource extends AsyncDisposable {
  readonly mode: MountMode;
  /** Mounts of one sandbox with the same mode and key share the attached source. */
  readonly key: string;
  /** Brings it into the guest as the volume of that name. Disposing of the result removes it. */
  attach(volume: string, signal: AbortSignal): Promise<AttachedSource>;
}

export type GuestMount = ContainerParams['mounts'][number];

export type GuestDevice = NonNullable<ContainerParams['devices']>[number];

/** Location of a mount's source in the guest; the mount itself gives the missing fields. */
export type GuestSource = Pick<GuestMount, 'volume'> & Partial<Pick<GuestMount, 'subPath' | 'readOnly'>>;

export interface AttachedSource extends AsyncDisposable {
  readonly guest: GuestSource;
  /** The host process that serves it, if any. */
  readonly server?: FileServerRecord;
  /** The disk, if it is one of the host's. */
  readonly block?: BlockDiskRecord;
  /** Present if it can be lost while it is attached. */
  readonly loss?: Loss;
}

/** The loss of an attached source: access in the guest fails until it is attached again, as another volume. */
export interface Loss {
  readonly isLost: boolean;
  /** Calls the listener with the reason, at once if it is lost already. Disposing the result ends that. */
  onLost(listener: (why: string) => void): Disposable;
  /** Loses it if its process was stopped, so that accesses fail instead of waiting. */
  endIfStopped(): Promise<void>;
}

/** A source of a container as recorded for the next process; plain JSON. */
export interface HeldSource extends Pick<AttachedSource, 'guest' | 'server' | 'block'> {
  readonly kind: 'host' | 'image' | 'device';
  readonly mode: MountMode;
  /** Containers with the same key share the source. */
  readonly key: string;
  /** Path on the host. */
  readonly path?: string;
}
