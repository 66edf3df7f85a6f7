import { limits } from './limits.ts';

/** What a sender may still send on one stream. */
export class SendCredit {
  #available: number;

  constructor(windowBytes: number) {
    this.#available = windowBytes;
  }

  get available(): number {
    return this.#available;
  }

  /** The caller asks `available` first. */
  spend(bytes: number): void {
    this.#available -= bytes;
  }

  /** A peer that grants without end gains nothing: no window is wider than the largest. */
  grant(bytes: number): void {
    this.#available = Math.min(this.#available + bytes, limits.streamWindowBytes);
  }
}

/** What a receiver has promised to take on one stream. Grants are saved up to half a window, to send few of them. */
export class ReceiveCredit {
  readonly #windowBytes: number;
  #promised: number;
  #consumed = 0;

  constructor(windowBytes: number) {
    this.#windowBytes = windowBytes;
    this.#promised = windowBytes;
  }

  /** False: the peer sent more than it was promised. */
  receive(bytes: number): boolean {
    this.#promised -= bytes;
    return this.#promised >= 0;
  }

  /** So many bytes were used up. Returns what to grant now, or 0. */
  consume(bytes: number): number {
    this.#consumed += bytes;
    if (this.#consumed < this.#windowBytes / 2) return 0;
    const grant = this.#consumed;
    this.#consumed = 0;
    this.#promised += grant;
    return grant;
  }
}
