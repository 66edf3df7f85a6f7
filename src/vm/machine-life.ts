import { PodvmError } from '#base/errors.ts';
import { machineMoves, type MachineExit, type MachineState } from './driver.ts';

/** Holds the state of one machine and the promise of its end. All state changes happen here, according to the table. */
export class MachineLife {
  readonly exited: Promise<MachineExit>;
  readonly #id: string;
  readonly #exit = Promise.withResolvers<MachineExit>();
  #state: MachineState;

  constructor(id: string, state: MachineState = 'starting') {
    this.#id = id;
    this.#state = state;
    this.exited = this.#exit.promise;
  }

  get state(): MachineState {
    return this.#state;
  }

  get isOver(): boolean {
    return machineMoves[this.#state].length === 0;
  }

  /** Errors: `internal` for a move that the table forbids. Only `end` reaches `stopped` and `failed`. */
  moveTo(next: 'running' | 'stopping'): void {
    this.#assertMove(next);
    this.#state = next;
  }

  /** Moves to the exit's state and settles `exited`. Errors: `internal` when the machine has already ended. */
  end(exit: MachineExit): void {
    this.#assertMove(exit.state);
    this.#state = exit.state;
    this.#exit.resolve(exit);
  }

  /** Errors: `unavailable` when the machine is gone, `failedPrecondition` in another state than `running`. */
  assertRunning(verb: string): void {
    if (this.#state === 'running') return;
    throw new PodvmError(
      this.isOver ? 'unavailable' : 'failedPrecondition',
      `Cannot ${verb} machine ${this.#id}: it must be running, got ${this.#state}`,
    );
  }

  #assertMove(next: MachineState): void {
    const allowed: readonly MachineState[] = machineMoves[this.#state];
    if (allowed.includes(next)) return;
    throw new PodvmError(
      'internal',
      `Cannot move machine ${this.#id} to ${next}: the table forbids it, got ${this.#state}`,
    );
  }
}
