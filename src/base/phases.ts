/** A named part of a start, a boot or an answer, and how long it took, in `ms`. */
export interface Phase {
  readonly name: string;
  readonly ms: number;
}

/** Times actions by name. A failed action is not recorded, and its error is passed on. */
export class Phases {
  readonly done: Phase[] = [];
  readonly #nowMs: () => number;
  #lastMs: number;

  /** `nowMs`: a clock that never goes back. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
    this.#lastMs = nowMs();
  }

  run(name: string, work: () => void): void {
    const startedMs = this.#nowMs();
    work();
    this.add(name, this.#nowMs() - startedMs);
  }

  async wait<T>(name: string, work: () => Promise<T>): Promise<T> {
    const startedMs = this.#nowMs();
    const result = await work();
    this.add(name, this.#nowMs() - startedMs);
    return result;
  }

  /** Ends a phase that began with the clock or the previous mark. */
  mark(name: string): void {
    const nowMs = this.#nowMs();
    this.add(name, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
  }

  /** Adds a phase that was timed elsewhere. */
  add(name: string, ms: number): void {
    this.done.push({ name, ms: Math.round(ms * 100) / 100 });
  }
}
