import type { Clock } from '#host/clock.ts';

/** Calls `onIdle` once after `idleMs` without `touch`, which only reads the clock. */
export class IdleWatch implements Disposable {
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #onIdle: () => void;
  #touchedAt: number;
  #cancel = () => {};

  constructor(clock: Clock, idleMs: number, onIdle: () => void) {
    this.#clock = clock;
    this.#idleMs = idleMs;
    this.#onIdle = onIdle;
    this.#touchedAt = clock.monotonicMs();
    this.#wait(idleMs);
  }

  touch(): void {
    this.#touchedAt = this.#clock.monotonicMs();
  }

  [Symbol.dispose](): void {
    this.#cancel();
  }

  #wait(ms: number): void {
    this.#cancel = this.#clock.after(ms, () => {
      const left = this.#touchedAt + this.#idleMs - this.#clock.monotonicMs();
      if (left <= 0) this.#onIdle();
      else this.#wait(left);
    });
  }
}
