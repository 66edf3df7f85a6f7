/**
 * The host's half of a pod's own volumes is the *scratch disk*: a sparse ext4 file which the VMM's user owns. Scratch
 * volumes are directories on it, or, with a limit, on one each that is made the same way; push volumes are sent to the
 * agent (`sandbox/volume/push-volume.ts`), and tmpfs volumes are memory of the pod.
 */

/** A sparse ext4 file, empty, to be attached to one machine. Disposing deletes it. */
export interface ScratchDisk extends AsyncDisposable {
  /** Absolute path. */
  readonly path: string;
  readonly sizeBytes: number;
}
