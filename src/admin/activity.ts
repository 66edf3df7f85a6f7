import type { Clock } from '#host/clock.ts';

/** Counts the requests, sessions and pods of a node, which is idle while there are none. */
export class Activity {
  readonly #clock: Clock;
  readonly #listeners = new Set<() => void>();
  #count = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Counts one until the result is disposed; a second disposal has no effect. */
  begin(): Disposable {
    let isOver = false;
    this.#count += 1;
    this.#changed();
    return {
      [Symbol.dispose]: () => {
        if (isOver) return;
        isOver = true;
        this.#count -= 1;
        this.#changed();
      },
    };
  }

  /** Resolves when the count has been 0 for `ms`, or when `signal` aborts. */
  idleFor(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    let cancel = () => {};
    const look = () => {
      cancel();
      cancel = this.#count > 0 ? () => {} : this.#clock.after(ms, end);
    };
    const end = () => {
      cancel();
      this.#listeners.delete(look);
      signal.removeEventListener('abort', end);
      resolve();
    };
    this.#listeners.add(look);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
    else look();
    return promise;
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
