import type { Clock } from '#engine/engine.ts';

/** One named part of a boot or of an answer, and how long it took, in `ms`. */
export interface Phase {
  readonly name: string;
  readonly ms: number;
}

/** Times what is done under a name. What fails is not told of, and its error goes on. */
export class Phases {
  readonly done: Phase[] = [];
  readonly #clock: Pick<Clock, 'monotonicMs'>;

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  run(name: string, work: () => void): void {
    const startedMs = this.#clock.monotonicMs();
    work();
    this.add(name, this.#clock.monotonicMs() - startedMs);
  }

  async wait<T>(name: string, work: () => Promise<T>): Promise<T> {
    const startedMs = this.#clock.monotonicMs();
    const result = await work();
    this.add(name, this.#clock.monotonicMs() - startedMs);
    return result;
  }

  /** What was timed elsewhere. */
  add(name: string, ms: number): void {
    this.done.push({ name, ms: Math.round(ms * 100) / 100 });
  }
}
