import type { ChildExit, Processes } from '#engine/engine.ts';

/** Exits of processes nobody has asked for yet: a container's first process may end before we have read its pid. */
const maxUnclaimed = 256;

/** Who waits for which process. As PID 1 we hear of every process that ends, orphans included. */
export class Children {
  readonly #waiting = new Map<number, (exit: ChildExit) => void>();
  readonly #unclaimed = new Map<number, ChildExit>();
  /** Calls of crun under way: only while there are some may an exit be claimed late. */
  #expecting = 0;

  constructor(processes: Pick<Processes, 'onExit'>) {
    processes.onExit((exit) => this.#exited(exit));
  }

  /** `handler` is called once, maybe at once. */
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

  /** While `work` runs, exits of processes that nobody waits for are remembered. */
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
