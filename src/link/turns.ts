/**
 * How much of the host's one thread a guest may have. Whatever it sends must be looked at, and a guest that sends
 * without end would have the thread to itself, and every other pod wait for it. So the time that its bytes take is
 * counted, and once it has used up what it has saved it waits for more: its own channel fills, and it with it.
 */
export interface TurnLimits {
  /** Part of the thread's time that goes to one guest, from 0 to 1. */
  readonly share: number;
  /** What it may have saved, in `ms`. */
  readonly savedMs: number;
}

/** A sixth of the thread is more than 100 MB/s of output, which is more than a channel carries. */
export const turnLimits: TurnLimits = { share: 1 / 6, savedMs: 50 };

export class Turns {
  readonly #limits: TurnLimits;
  #savedMs: number;
  #lastMs: number;

  constructor(nowMs: number, limits: TurnLimits = turnLimits) {
    this.#limits = limits;
    this.#savedMs = limits.savedMs;
    this.#lastMs = nowMs;
  }

  /** At `nowMs`, after bytes took `tookMs` of the thread: how long no more are to be taken, in `ms`. */
  used(tookMs: number, nowMs: number): number {
    const { share, savedMs } = this.#limits;
    this.#savedMs = Math.min(savedMs, this.#savedMs + share * (nowMs - this.#lastMs)) - tookMs;
    this.#lastMs = nowMs;
    return this.#savedMs >= 0 ? 0 : -this.#savedMs / share;
  }
}
