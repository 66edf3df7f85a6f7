/** Reports the tasks of set-up. */
export interface Progress {
  /** Runs a named task; the name completes "podvm is ...", e.g. "unpacking the compiler". */
  during<T>(task: string, work: () => Promise<T>): Promise<T>;
}

/** Reports nothing. */
export const silentProgress: Progress = { during: (_, work) => work() };

const quietMs = 2000;

/**
 * Writes a line when a task has taken two seconds, again every 30 s, and when it ends; nothing for shorter tasks.
 */
export function createProgress(write: (line: string) => void): Progress {
  return {
    async during(task, work) {
      const start = performance.now();
      const seconds = () => `${((performance.now() - start) / 1000).toFixed(0)} s`;
      let said = false;
      const say = () => {
        write(said ? `podvm: still ${task} (${seconds()})\n` : `podvm: ${task} ...\n`);
        said = true;
        timer = setTimeout(say, 30_000);
      };
      let timer = setTimeout(say, quietMs);
      try {
        const result = await work();
        if (said) write(`podvm: ${task}: done in ${seconds()}\n`);
        return result;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}
