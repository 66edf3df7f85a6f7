import type { Clock } from '#host/clock.ts';

/** What a node does at present: requests, sessions and pods. It is idle while there is nothing of it. */
export class Activity {
  readonly #clock: Clock;
  readonly #listeners = new Set<() => void>();
  #count = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Until it is disposed, which it may be several times. */
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

  /** Resolves when there was nothing for that long. An abort of `signal` ends the wait. */
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
