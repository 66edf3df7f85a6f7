/**
 * How much of the host's one thread guests may have. Whatever they send must be looked at, and guests that send without
 * end would have the thread to themselves, and every other pod wait for it. So the time that each one's bytes take is
 * counted, and a guest that has used up what it has saved waits for more: its own channel fills, and it with it.
 *
 * Together they have a part of the thread, however many they are. It is divided among those that use it: who has not
 * spent anything lately has all its savings, and goes before those that have none.
 */
export interface TurnLimits {
  /** Part of the thread's time that goes to one guest, from 0 to 1. */
  readonly share: number;
  /** Part that goes to all of them. */
  readonly total: number;
  /** What one may have saved, in `ms`. */
  readonly savedMs: number;
}

/** A sixth of the thread is more than 100 MB/s of output, which is more than a channel carries. */
export const turnLimits: TurnLimits = { share: 1 / 6, total: 1 / 3, savedMs: 50 };

/** A thread, and the time that is given out of it. */
export class SharedThread {
  readonly limits: TurnLimits;
  /** What each of those that use it has been given since the beginning, in `ms`. */
  #givenMs = 0;
  #lastMs: number;
  /** Those that use it, and what has been given when they have all their savings again. */
  readonly #users = new Map<Turns, number>();

  constructor(nowMs: number, limits: TurnLimits = turnLimits) {
    this.limits = limits;
    this.#lastMs = nowMs;
  }

  /** Part of the thread's time that each of its users has now. */
  get rate(): number {
    return Math.min(this.limits.share, this.limits.total / Math.max(1, this.#users.size));
  }

  /** What a user has been given up to now. Who uses nothing any more counts until it has been looked at: never too little. */
  givenMs(nowMs: number): number {
    this.#givenMs += Math.max(0, nowMs - this.#lastMs) * this.rate;
    this.#lastMs = Math.max(this.#lastMs, nowMs);
    for (const [user, untilMs] of this.#users) if (untilMs <= this.#givenMs) this.#users.delete(user);
    return this.#givenMs;
  }

  uses(user: Turns, untilGivenMs: number): void {
    if (untilGivenMs > this.#givenMs) this.#users.set(user, untilGivenMs);
    else this.#users.delete(user);
  }

  forget(user: Turns): void {
    this.#users.delete(user);
  }
}

/** Those of one guest. */
export class Turns {
  readonly #thread: SharedThread;
  #savedMs: number;
  #givenMs: number;

  constructor(thread: SharedThread, nowMs: number) {
    this.#thread = thread;
    this.#savedMs = thread.limits.savedMs;
    this.#givenMs = thread.givenMs(nowMs);
  }

  /** At `nowMs`, after bytes took `tookMs` of the thread: how long no more are to be taken, in `ms`. */
  used(tookMs: number, nowMs: number): number {
    const { savedMs } = this.#thread.limits;
    const givenMs = this.#thread.givenMs(nowMs);
    this.#savedMs = Math.min(savedMs, this.#savedMs + givenMs - this.#givenMs) - tookMs;
    this.#givenMs = givenMs;
    this.#thread.uses(this, givenMs + savedMs - this.#savedMs);
    return this.#savedMs >= 0 ? 0 : -this.#savedMs / this.#thread.rate;
  }

  /** To be asked before bytes are taken once more: others may have come, and the wait be longer. In `ms`. */
  rest(nowMs: number): number {
    return this.used(0, nowMs);
  }

  /** It takes no more. */
  end(): void {
    this.#thread.forget(this);
  }
}
