import type { ProcessExit, TaskProcess } from './process.ts';

/** States and end of a process: created -> running -> stopped. */
export class ProcessLife {
  readonly exited: Promise<ProcessExit>;
  readonly #settle: (exit: ProcessExit) => void;
  #hasStarted = false;
  #exit: ProcessExit | undefined;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<ProcessExit>();
    this.exited = promise;
    this.#settle = resolve;
  }

  get state(): TaskProcess['state'] {
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
