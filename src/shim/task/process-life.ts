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
  #hasStarted: boolean;
  #exit: ProcessExit | undefined;

  /** `before`: of a process that an earlier daemon started. */
  constructor(before: { readonly isStarted: boolean; readonly exit?: ProcessExit } = { isStarted: false }) {
    const { promise, resolve } = Promise.withResolvers<ProcessExit>();
    this.exited = promise;
    this.#settle = resolve;
    this.#hasStarted = before.isStarted;
    if (before.exit !== undefined) this.end(before.exit);
  }

  get state(): ProcessState {
    if (this.#exit !== undefined) return 'stopped';
    return this.#hasStarted ? 'running' : 'created';
  }

  get hasStarted(): boolean {
    return this.#hasStarted;
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
