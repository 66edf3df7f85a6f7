const initialBytes = 64 * 1024;
const maxBytes = 0x7fff_ffff;

/**
 * Tracks how much the peer allows us to send. SPDY/3.1 gives each stream and the session a window of 64 KiB, which
 * WINDOW_UPDATE frames extend. moby/spdystream, used by all Kubernetes clients, neither sends them nor uses windows,
 * and relies on TCP. So windows are counted from the beginning, and enforced after the first frame of a peer that uses
 * them.
 */
export class SendWindows {
  #isKept = false;
  #initialBytes = initialBytes;
  #sessionBytes = initialBytes;
  readonly #streamBytes = new Map<number, number>();

  open(streamId: number): void {
    this.#streamBytes.set(streamId, this.#initialBytes);
  }

  forget(streamId: number): void {
    this.#streamBytes.delete(streamId);
  }

  available(streamId: number): number {
    if (!this.#isKept) return maxBytes;
    return Math.max(0, Math.min(this.#sessionBytes, this.#streamBytes.get(streamId) ?? 0));
  }

  spend(streamId: number, bytes: number): void {
    this.#sessionBytes -= bytes;
    const left = this.#streamBytes.get(streamId);
    if (left !== undefined) this.#streamBytes.set(streamId, left - bytes);
  }

  /** Extends a window; stream 0 is the session. Returns false when it would exceed the maximum. */
  grant(streamId: number, bytes: number): boolean {
    this.#isKept = true;
    if (streamId === 0) {
      this.#sessionBytes += bytes;
      return this.#sessionBytes <= maxBytes;
    }
    const left = this.#streamBytes.get(streamId);
    if (left === undefined) return true; // the stream has ended
    this.#streamBytes.set(streamId, left + bytes);
    return left + bytes <= maxBytes;
  }

  /** Sets the initial window, also of open streams (section 2.6.8). May reduce the unused part. */
  setInitial(bytes: number): void {
    this.#isKept = true;
    for (const [id, left] of this.#streamBytes) this.#streamBytes.set(id, left + bytes - this.#initialBytes);
    this.#initialBytes = bytes;
  }
}
