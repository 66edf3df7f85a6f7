export interface ProcessExit {
  /** Exit code, or 128 plus the number of the signal that ended it. */
  readonly status: number;
  readonly at: Date;
}

export type ProcessState = 'created' | 'running' | 'stopped';

/** States and end of a process: created -> running -> stopped. */
export class ProcessLife {
  /** Settles once; never rejects. */
  readonly exited: Promise<ProcessExit>;
  readonly #settle: (exit: ProcessExit) => void;
  #hasStarted = false;
  #exit: ProcessExit | undefined;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<ProcessExit>();
    this.exited = promise;
    this.#settle = resolve;
  }

  get state(): ProcessState {
    if (this.#exit !== undefined) return 'stopped';
    return this.#hasStarted ? 'running' : 'created';
  }

  get exit(): ProcessExit | undefined {
    return this.#exit;
  }

  start(): void {
    this.#hasStarted = true;
  }

  /** The first end counts. */
  end(exit: ProcessExit): void {
    if (this.#exit !== undefined) return;
    this.#exit = exit;
    this.#settle(exit);
  }
}
