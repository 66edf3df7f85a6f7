import { messageOf } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import { within } from '#host/wait.ts';
import type { Holdings } from './holdings.ts';

type Undo = () => Promise<void>;

/** Time for which the end of this process waits for a try, in `ms`: that of a plugin that hangs takes minutes. */
const closeMs = 5000;

/**
 * What could not be undone, such as a network whose plugin fails. It is tried again until nothing is left; what is left at the end
 * of this process is for the next one.
 */
export class LeftOvers implements AsyncDisposable {
  readonly #log: Log;
  readonly #againMs: number;
  readonly #all = new Set<Undo>();
  #timer: NodeJS.Timeout | undefined;
  #trying: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** `againMs`: time between two tries. */
  constructor(log: Log, againMs: number) {
    this.#log = log;
    this.#againMs = againMs;
  }

  /** Number of sandboxes of which something is left. */
  get size(): number {
    return this.#all.size;
  }

  /** Disposing releases all that is held then. */
  undoing(holdings: Holdings): AsyncDisposable {
    return { [Symbol.asyncDispose]: () => this.undo(() => holdings[Symbol.asyncDispose]()) };
  }

  /** Calls `undo`, and calls it again later if it fails, also of several calls of the same one. Errors: those of this call. */
  async undo(undo: Undo): Promise<void> {
    try {
      await undo();
      this.#all.delete(undo);
    } catch (error) {
      this.#all.add(undo);
      this.#plan();
      throw error;
    }
  }

  #plan(): void {
    if (this.#isClosed || this.#timer !== undefined) return;
    const again = () => {
      this.#trying = this.#tryAgain().finally(() => {
        this.#timer = undefined;
        if (this.#all.size > 0) this.#plan();
      });
    };
    this.#timer = setTimeout(again, this.#againMs).unref();
  }

  /** Never rejects. */
  async #tryAgain(): Promise<void> {
    for (const undo of this.#all) {
      if (this.#isClosed) return;
      try {
        await undo();
        this.#all.delete(undo);
        this.#log.info('what was left is removed', { left: this.#all.size });
      } catch (error) {
        this.#log.debug('what is left is not removed', { why: messageOf(error) });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await within(this.#trying, { ms: closeMs });
  }
}
