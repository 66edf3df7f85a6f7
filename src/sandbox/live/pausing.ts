import { frozen } from '#link/agent-link.ts';
import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import type { Surroundings } from '../parts.ts';

interface PausedParts {
  readonly machine: Pick<Machine, 'freezeVmm'>;
  readonly guest: Pick<Link, 'setFrozen'>;
  readonly surroundings: Pick<Surroundings, 'log'>;
}

/** Whether a sandbox is paused: its VMM is frozen, and the heartbeat knows. */
export class Pausing {
  readonly #live: PausedParts;
  #isPaused = false;
  /** The last signal to the VMM: one that overtook another would leave it in the wrong state. */
  #signalling: Promise<void> = Promise.resolve();

  constructor(live: PausedParts) {
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
    this.#signalling = this.#signalling.catch(() => undefined).then(() => machine.freezeVmm(isPaused));
    await this.#signalling;
    surroundings.log.info(isPaused ? 'sandbox paused' : 'sandbox continues');
  }

  /** Errors: `unavailable` while it is paused. */
  assertRuns(verb: string): void {
    if (this.#isPaused) throw frozen(`Cannot ${verb}`);
  }
}
