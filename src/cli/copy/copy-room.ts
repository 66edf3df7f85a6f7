import { PodvmError } from '#base/errors.ts';
import { type DiskRoom, diskRoom } from '#host/file/disk-room.ts';

/** Looks as soon as one of these has passed. Entries without content take room, too, so that bytes alone say little. */
const lookBytes = 256 * 1024;
const lookMs = 50;

/**
 * Keeps a copy from filling the disk: a container may send without an end. Leaves what `diskRoom` reserves; where less
 * than twice of that was free at the beginning, half of what was.
 */
export class CopyRoom {
  readonly #directory: string;
  readonly #leaveBytes: number;
  readonly #leaveFiles: number;
  #lookedAtMs = -Infinity;
  #bytesSince = 0;

  private constructor(directory: string, { freeBytes, reservedBytes, freeFiles, reservedFiles }: DiskRoom) {
    this.#directory = directory;
    this.#leaveBytes = Math.min(reservedBytes, freeBytes / 2);
    this.#leaveFiles = Math.min(reservedFiles, freeFiles / 2);
  }

  static async open(directory: string): Promise<CopyRoom> {
    return new CopyRoom(directory, await diskRoom(directory));
  }

  /** Call before each piece. Errors: `exhausted`. */
  async check(bytes: number): Promise<void> {
    const now = performance.now();
    this.#bytesSince += bytes;
    if (this.#bytesSince < lookBytes && now - this.#lookedAtMs < lookMs) return;
    this.#lookedAtMs = now;
    this.#bytesSince = 0;
    const { freeBytes, freeFiles } = await diskRoom(this.#directory);
    if (freeBytes < this.#leaveBytes) throw this.#full(`${Math.round(this.#leaveBytes / 1024 ** 2)} MiB`);
    if (freeFiles < this.#leaveFiles) throw this.#full(`room for ${Math.round(this.#leaveFiles)} files`);
  }

  #full(left: string): PodvmError {
    return new PodvmError('exhausted', `Cannot copy the archive: it would leave less than ${left} free on the disk`, {
      fix: 'Free some space, or copy less, or to another disk. `podvm cp POD:PATH - | tar -tv` lists what the pod sends.',
    });
  }
}
