const initialBytes = 64 * 1024;
const maxBytes = 0x7fff_ffff;

/**
 * How much the peer lets us send. SPDY/3.1 gives each stream and the session a window of 64 KiB, which WINDOW_UPDATE
 * frames widen; but moby/spdystream, and so every client of Kubernetes, neither sends them nor minds windows: it holds
 * us back by TCP alone. So the windows are counted from the beginning and kept to from the first word that shows a
 * peer who minds them.
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

  /** Stream 0 is the session. False when the window would be wider than there may be. */
  grant(streamId: number, bytes: number): boolean {
    this.#isKept = true;
    if (streamId === 0) {
      this.#sessionBytes += bytes;
      return this.#sessionBytes <= maxBytes;
    }
    const left = this.#streamBytes.get(streamId);
    if (left === undefined) return true; // of a stream that has ended meanwhile
    this.#streamBytes.set(streamId, left + bytes);
    return left + bytes <= maxBytes;
  }

  /** Holds for streams that are open, too (section 2.6.8); it may take back what was not used. */
  setInitial(bytes: number): void {
    this.#isKept = true;
    for (const [id, left] of this.#streamBytes) this.#streamBytes.set(id, left + bytes - this.#initialBytes);
    this.#initialBytes = bytes;
  }
}
