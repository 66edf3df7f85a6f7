/**
 * Limits the part of the host's one thread that guests may use. Everything that guests send must be looked at, and guests
 * that send endlessly would occupy the thread while all other pods wait. So the time that each guest's bytes take is
 * counted, and a guest that has used up its savings waits: its own channel fills up and stops it.
 *
 * Together, guests get a part of the thread, however many they are, divided among those that use it: a guest that has
 * not used any recently has all its savings, and precedes those that have none.
 */
export interface TurnLimits {
  /** Part of the thread's time for one guest, from 0 to 1. */
  readonly share: number;
  /** Part for all guests together. */
  readonly total: number;
  /** Maximum savings of one guest, in `ms`. */
  readonly savedMs: number;
}

/** A sixth of the thread is enough for more than 100 MB/s of output, more than a channel carries. */
export const turnLimits: TurnLimits = { share: 1 / 6, total: 1 / 3, savedMs: 50 };

/** A thread, and the time that it gives to its users. */
export class SharedThread {
  readonly limits: TurnLimits;
  /** Time given to each user since the beginning, in `ms`. */
  #givenMs = 0;
  #lastMs: number;
  /** The users, with the given time at which each has all its savings again. */
  readonly #users = new Map<Turns, number>();

  constructor(nowMs: number, limits: TurnLimits = turnLimits) {
    this.limits = limits;
    this.#lastMs = nowMs;
  }

  /** Part of the thread's time that each user currently has. */
  get rate(): number {
    return Math.min(this.limits.share, this.limits.total / Math.max(1, this.#users.size));
  }

  /** Time given to each user so far. A user that stopped counts until its next check, so the time is never too low. */
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

/** The turns of one guest. */
export class Turns {
  readonly #thread: SharedThread;
  #savedMs: number;
  #givenMs: number;

  constructor(thread: SharedThread, nowMs: number) {
    this.#thread = thread;
    this.#savedMs = thread.limits.savedMs;
    this.#givenMs = thread.givenMs(nowMs);
  }

  /** Records that bytes took `tookMs` at `nowMs`; returns the pause before more may be taken, in `ms`. */
  used(tookMs: number, nowMs: number): number {
    const { savedMs } = this.#thread.limits;
    const givenMs = this.#thread.givenMs(nowMs);
    this.#savedMs = Math.min(savedMs, this.#savedMs + givenMs - this.#givenMs) - tookMs;
    this.#givenMs = givenMs;
    this.#thread.uses(this, givenMs + savedMs - this.#savedMs);
    return this.#savedMs >= 0 ? 0 : -this.#savedMs / this.#thread.rate;
  }

  /** Returns the rest of the pause, in `ms`, which grows with more users; call it before more bytes are taken. */
  rest(nowMs: number): number {
    return this.used(0, nowMs);
  }

  /** Ends the use of the thread. */
  end(): void {
    this.#thread.forget(this);
  }
}
