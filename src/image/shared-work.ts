import { PodvmError } from '#base/errors.ts';
import { within } from '#host/wait.ts';

type OnProgress = (message: string) => void;

interface Waiter {
  readonly onProgress?: OnProgress;
}

interface Shared<T> {
  readonly result: Promise<T>;
  readonly abort: AbortController;
  readonly waiting: Set<Waiter>;
}

/** Work that callers with the same key share while it lasts. It is cancelled when the last of them leaves. */
export class SharedWork<T> {
  readonly #shared = new Map<string, Shared<T>>();

  /** `doing`: for messages. Errors: `cancelled`, those of `start`. */
  async run(
    doing: string,
    key: string,
    start: (onProgress: OnProgress, signal: AbortSignal) => Promise<T>,
    signal: AbortSignal,
    caller: Waiter = {},
  ): Promise<T> {
    const shared = this.#shared.get(key) ?? this.#start(key, start);
    const waiter = { ...caller };
    shared.waiting.add(waiter);
    try {
      // The work continues for other callers that wait for it.
      const done = await within(
        shared.result.then((value) => ({ value })),
        { signal },
      );
      if (done !== undefined) return done.value;
      throw new PodvmError('cancelled', `Cannot ${doing}: cancelled`, { cause: signal.reason });
    } finally {
      shared.waiting.delete(waiter);
      if (shared.waiting.size === 0) {
        shared.abort.abort(); // no caller is left; does nothing after its end
        this.#forget(key, shared); // the next caller starts again
      }
    }
  }

  #start(key: string, start: (onProgress: OnProgress, signal: AbortSignal) => Promise<T>): Shared<T> {
    const abort = new AbortController();
    const waiting = new Set<Waiter>();
    const result = start((message) => waiting.forEach((waiter) => waiter.onProgress?.(message)), abort.signal);
    const shared = { result, abort, waiting };
    const forget = () => this.#forget(key, shared);
    result.then(forget, forget); // also when no caller is left to see an error
    this.#shared.set(key, shared);
    return shared;
  }

  #forget(key: string, shared: Shared<T>): void {
    if (this.#shared.get(key) === shared) this.#shared.delete(key);
  }
}
