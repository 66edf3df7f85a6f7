import { PodvmError } from '#base/errors.ts';

/** The newest call about each object of files. An older one, such as a roll that goes on, starts no more pods of the object. */
export class NewestCalls {
  readonly #newest = new Map<string, symbol>();

  /** Begins a call about an object, until the result is disposed. */
  begin(object: string): Disposable & { requireNewest(): void } {
    const mine = Symbol(object);
    this.#newest.set(object, mine);
    const isNewest = () => this.#newest.get(object) === mine;
    return {
      /** Errors: `failedPrecondition` after another call has begun, or all were ended. */
      requireNewest: () => {
        if (isNewest()) return;
        throw new PodvmError('failedPrecondition', `Cannot go on with ${object}: a later command has changed it`, {
          fix: 'See its pods with `podvm ps -a`, and apply the files again if that is what you want.',
        });
      },
      [Symbol.dispose]: () => {
        if (isNewest()) this.#newest.delete(object);
      },
    };
  }

  /** Lets no call go on. */
  end(): void {
    this.#newest.clear();
  }
}
