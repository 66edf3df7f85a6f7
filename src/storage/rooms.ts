const mebibyte = 1024 * 1024;
/** Descriptors of all file servers of a pod together, in addition to `fewest` for each. */
const mostOfPod = 262_144;
const mostOfServer = 65_536;
const fewest = 8_192;
/** Base memory. An idle server uses 2 MB, and its engine about 600 bytes for each file that its client knows. */
const baseBytes = 32 * mebibyte;
const bytesOfDescriptor = 1_536;

/** Host resources of one file server. */
export interface Room {
  /** Files that its client knows or has open. */
  readonly descriptors: number;
  readonly memoryBytes: number;
}

/**
 * Divides a pod's limit among its file servers. Each gets half of the rest, in order of arrival, so that the first few
 * have as much as a single server needs, and thirty cannot have thirty times as much.
 */
export class Rooms {
  readonly #taken = new Map<string, number>();

  /** Reserves a share. Dispose it when the server has ended. */
  take(owner: string): Room & Disposable {
    const taken = this.#taken.get(owner) ?? 0;
    const half = Math.floor(Math.max(0, mostOfPod - taken) / 2);
    return this.occupy(owner, Math.max(fewest, Math.min(mostOfServer, half)));
  }

  /** The same for a server of an earlier process, which has `descriptors` already. */
  occupy(owner: string, descriptors: number): Room & Disposable {
    this.#add(owner, descriptors);
    let isTaken = true;
    return {
      descriptors,
      memoryBytes: baseBytes + descriptors * bytesOfDescriptor,
      [Symbol.dispose]: () => {
        if (isTaken) this.#add(owner, -descriptors);
        isTaken = false;
      },
    };
  }

  #add(owner: string, descriptors: number): void {
    const taken = (this.#taken.get(owner) ?? 0) + descriptors;
    if (taken === 0) this.#taken.delete(owner);
    else this.#taken.set(owner, taken);
  }
}
