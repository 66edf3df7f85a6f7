import { limits } from './limits.ts';

/** The bytes that a sender may still send on one stream. */
export class SendCredit {
  #available: number;

  constructor(windowBytes: number) {
    this.#available = windowBytes;
  }

  get available(): number {
    return this.#available;
  }

  /** Uses credit; the caller checks `available` first. */
  spend(bytes: number): void {
    this.#available -= bytes;
  }

  /** Adds credit, up to the largest window, so that a peer gains nothing by granting endlessly. */
  grant(bytes: number): void {
    this.#available = Math.min(this.#available + bytes, limits.streamWindowBytes);
  }
}

/** The bytes that a receiver has promised to take on one stream. Saves up grants to half a window, to send few of them. */
export class ReceiveCredit {
  readonly #windowBytes: number;
  #promised: number;
  #consumed = 0;

  constructor(windowBytes: number) {
    this.#windowBytes = windowBytes;
    this.#promised = windowBytes;
  }

  /** Returns false when the peer sent more than it was promised. */
  receive(bytes: number): boolean {
    this.#promised -= bytes;
    return this.#promised >= 0;
  }

  /** Records that this many bytes were used up. Returns the credit to grant now, or 0. */
  consume(bytes: number): number {
    this.#consumed += bytes;
    if (this.#consumed < this.#windowBytes / 2) return 0;
    const grant = this.#consumed;
    this.#consumed = 0;
    this.#promised += grant;
    return grant;
  }
}
