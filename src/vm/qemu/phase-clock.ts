import type { Phases } from '../driver.ts';

/** Measures the steps of a start, one after the other. */
export class PhaseClock {
  readonly #phases: { name: string; ms: number }[] = [];
  #last = performance.now();

  /** Ends the step that began with the clock or the previous mark. */
  mark(name: string): void {
    const now = performance.now();
    this.#phases.push({ name, ms: Math.round((now - this.#last) * 10) / 10 });
    this.#last = now;
  }

  get phases(): Phases {
    return this.#phases;
  }
}
