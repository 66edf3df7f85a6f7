/**
 * The host's part of a pod's own volumes is the *scratch disk*: a sparse ext4 file owned by the VMM's user. Scratch
 * volumes are directories on it; a volume with a limit has a disk of its own. Push volumes are sent to the agent
 * (`sandbox/volume/push-volume.ts`), and tmpfs volumes are memory of the pod.
 */

/** An empty, sparse ext4 file that is attached to one machine. Disposing deletes it. */
export interface ScratchDisk extends AsyncDisposable {
  readonly path: string;
  readonly sizeBytes: number;
}
