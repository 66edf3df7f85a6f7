import { frozen } from '#link/agent-link.ts';
import type { LiveParts } from './live-parts.ts';

/** Whether a sandbox is paused: its VMM is frozen, and the heartbeat knows. */
export class Pausing {
  readonly #live: LiveParts;
  #isPaused = false;

  constructor(live: LiveParts) {
    this.#live = live;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  async set(isPaused: boolean): Promise<void> {
    if (this.#isPaused === isPaused) return;
    const { guest, machine, surroundings } = this.#live;
    this.#isPaused = isPaused;
    guest.setFrozen(isPaused);
    await machine.freezeVmm(isPaused);
    surroundings.log.info(isPaused ? 'sandbox paused' : 'sandbox continues');
  }

  /** Errors: `unavailable` while it is paused. */
  assertRuns(verb: string): void {
    if (this.#isPaused) throw frozen(`Cannot ${verb}`);
  }
}
