import type { Clock, Runtime } from '#engine/engine.ts';
import { Phases, type Phase } from '#base/phases.ts';

/**
 * Runs named steps one after the other and records their times. A failed step is printed and kept in `failures`, and
 * the boot continues: a guest that can reach its host is more useful than a dead one.
 */
export class BootPhases {
  readonly failures: string[] = [];
  readonly #engine: Pick<Clock, 'monotonicMs'> & Pick<Runtime, 'print'>;
  readonly #phases: Phases;

  constructor(engine: Pick<Clock, 'monotonicMs'> & Pick<Runtime, 'print'>) {
    this.#engine = engine;
    this.#phases = new Phases(() => engine.monotonicMs());
    this.#phases.add('kernel', engine.monotonicMs());
  }

  get done(): readonly Phase[] {
    return this.#phases.done;
  }

  async run(name: string, step: () => void | Promise<void>): Promise<void> {
    await this.#phases.wait(name, async () => {
      try {
        await step();
      } catch (error) {
        this.fail(name, error);
      }
    });
  }

  fail(name: string, error: unknown): void {
    const text = `boot: ${name}: ${error instanceof Error ? error.message : String(error)}`;
    this.failures.push(text);
    this.#engine.print(text);
  }
}
