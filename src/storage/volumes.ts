/**
 * The host's half of volumes. Words: a volume's *mode* says how it reaches the guest. `push`: the host sends a tree
 * of small files and later whole new versions of it. `scratch`: a directory on the sandbox's *scratch disk*, a sparse
 * ext4 file of which the VMM owns. `tmpfs`: memory of the pod; nothing on the host.
 */
export type VolumeMode = 'push' | 'scratch' | 'tmpfs';

/** A file as given: content of a ConfigMap, a Secret, the downward API or several of them (projected). */
export interface PushFile {
  /** Relative, `/`-separated; no empty, `.` or `..` part. */
  readonly path: string;
  readonly bytes: Uint8Array;
  /** Permission bits, such as 0o644. */
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** One thing to be made in the volume's root, in order: parents come before their children. */
export type PushEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | ({ readonly kind: 'file' } & PushFile)
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string };

/**
 * A bounded, checked tree of one version of a volume. `entries` is the layout kubelet writes: files in a directory
 * named by time, `..data` a symlink to it that is switched by one rename, and a symlink at the top per first name.
 */
export interface PushTree {
  /** Sorted by path. */
  readonly files: readonly PushFile[];
  readonly entries: readonly PushEntry[];
  /** Name of the versioned directory, `..2026_11_23_20_00_00.123456789`. */
  readonly version: string;
  readonly bytes: number;
}

/** A sparse ext4 file, empty, to be attached to one machine. Disposing deletes it. */
export interface ScratchDisk extends AsyncDisposable {
  /** Absolute path. */
  readonly path: string;
  readonly sizeBytes: number;
}
