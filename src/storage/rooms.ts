const mebibyte = 1024 * 1024;
/** Of all file servers of a pod together, but for `fewest` that each has. */
const mostOfPod = 262_144;
const mostOfServer = 65_536;
const fewest = 8_192;
/** An idle server has 2 MB; its engine needs some 600 bytes for a file that its client knows. */
const baseBytes = 32 * mebibyte;
const bytesOfDescriptor = 1_536;

/** What one file server may take of the host. */
export interface Room {
  /** Files that its client knows, or has open. */
  readonly descriptors: number;
  readonly memoryBytes: number;
}

/**
 * Divides a bound for each pod among its file servers: each gets half of what is left, as it comes, so that the first few
 * have as many as one server ever has, and thirty cannot have thirty times as much.
 */
export class Rooms {
  readonly #taken = new Map<string, number>();

  /** To be given back when the server has ended. */
  take(owner: string): Room & Disposable {
    const taken = this.#taken.get(owner) ?? 0;
    const half = Math.floor(Math.max(0, mostOfPod - taken) / 2);
    const descriptors = Math.max(fewest, Math.min(mostOfServer, half));
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
