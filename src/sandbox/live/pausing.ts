import { frozen } from '#link/agent-link.ts';
import type { LiveParts } from './live-parts.ts';

interface PausingParts {
  readonly guest: Pick<LiveParts['guest'], 'setFrozen'>;
  readonly machine: Pick<LiveParts['machine'], 'freezeVmm'>;
  readonly surroundings: { readonly log: Pick<LiveParts['surroundings']['log'], 'info'> };
}

/** Whether a sandbox is paused: its VMM is frozen, and the heartbeat knows. */
export class Pausing {
  readonly #live: PausingParts;
  #isPaused = false;
  /** The last change: a later one waits for it, so that signals arrive in the order of the calls. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(live: PausingParts) {
    this.#live = live;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Changes nothing after an error. Errors: those of `Machine.freezeVmm`. */
  async set(isPaused: boolean): Promise<void> {
    const turn = this.#changing.then(() => this.#set(isPaused));
    this.#changing = turn.catch(() => undefined);
    await turn;
  }

  /** Errors: `unavailable` while it is paused. */
  assertRuns(verb: string): void {
    if (this.#isPaused) throw frozen(`Cannot ${verb}`);
  }

  async #set(isPaused: boolean): Promise<void> {
    if (this.#isPaused === isPaused) return;
    const { machine, surroundings } = this.#live;
    this.#note(isPaused);
    try {
      await machine.freezeVmm(isPaused);
    } catch (error) {
      this.#note(!isPaused);
      throw error;
    }
    surroundings.log.info(isPaused ? 'sandbox paused' : 'sandbox continues');
  }

  #note(isPaused: boolean): void {
    this.#isPaused = isPaused;
    this.#live.guest.setFrozen(isPaused);
  }
}
