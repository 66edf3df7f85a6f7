import type { ChildExit, Processes } from '#engine/engine.ts';

/** Limit of exits kept until a caller claims them: a container's first process may end before its pid is read. */
const maxUnclaimed = 256;

/** Records the processes that are waited for. As PID 1, the agent gets the exit of every process, including orphans. */
export class Children {
  readonly #waiting = new Map<number, (exit: ChildExit) => void>();
  readonly #unclaimed = new Map<number, ChildExit>();
  /** Number of running crun calls. A late claim of an exit is possible only while there are some. */
  #expecting = 0;

  constructor(processes: Pick<Processes, 'onExit'>) {
    processes.onExit((exit) => this.#exited(exit));
  }

  /** Calls `handler` once, immediately if the process has ended already. */
  onExit(pid: number, handler: (exit: ChildExit) => void): void {
    const early = this.#unclaimed.get(pid);
    if (early === undefined) this.#waiting.set(pid, handler);
    else {
      this.#unclaimed.delete(pid);
      handler(early);
    }
  }

  wait(pid: number): Promise<ChildExit> {
    return new Promise((resolve) => {
      this.onExit(pid, resolve);
    });
  }

  /** While `work` runs, keeps the exits of processes that are not waited for yet. */
  async expecting<T>(work: () => Promise<T>): Promise<T> {
    this.#expecting += 1;
    try {
      return await work();
    } finally {
      this.#expecting -= 1;
      if (this.#expecting === 0) this.#unclaimed.clear();
    }
  }

  #exited(exit: ChildExit): void {
    const handler = this.#waiting.get(exit.pid);
    if (handler !== undefined) {
      this.#waiting.delete(exit.pid);
      handler(exit);
    } else if (this.#expecting > 0) {
      if (this.#unclaimed.size >= maxUnclaimed) {
        for (const oldest of this.#unclaimed.keys()) {
          this.#unclaimed.delete(oldest);
          break;
        }
      }
      this.#unclaimed.set(exit.pid, exit);
    }
  }
}
