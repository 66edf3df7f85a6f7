import type { Clock, Runtime } from '#engine/engine.ts';
import type { Phase } from '../phases.ts';

/**
 * Runs named steps one after the other and remembers their times. A step that fails is printed and kept in `failures`,
 * and the boot goes on: a guest that can still talk to its host is worth more than one that has died.
 */
export class BootPhases {
  readonly done: Phase[] = [];
  readonly failures: string[] = [];
  readonly #engine: Pick<Clock, 'monotonicMs'> & Pick<Runtime, 'print'>;

  constructor(engine: Pick<Clock, 'monotonicMs'> & Pick<Runtime, 'print'>) {
    this.#engine = engine;
    this.done.push({ name: 'kernel', ms: rounded(engine.monotonicMs()) });
  }

  async run(name: string, step: () => void | Promise<void>): Promise<void> {
    const startedMs = this.#engine.monotonicMs();
    try {
      await step();
    } catch (error) {
      this.fail(name, error);
    }
    this.done.push({ name, ms: rounded(this.#engine.monotonicMs() - startedMs) });
  }

  fail(name: string, error: unknown): void {
    const text = `boot: ${name}: ${error instanceof Error ? error.message : String(error)}`;
    this.failures.push(text);
    this.#engine.print(text);
  }
}

const rounded = (ms: number): number => Math.round(ms * 100) / 100;
