/** Reports the tasks of set-up. */
export interface Progress {
  /**
   * Runs a named task; the name completes "podvm is ...", e.g. "unpacking the compiler". `howFar` returns how far it is, if that is
   * known, and does not throw.
   */
  during<T>(task: string, work: () => Promise<T>, howFar?: () => Promise<string | undefined>): Promise<T>;
}

/** Reports nothing. */
export const silentProgress: Progress = { during: (_, work) => work() };

const quietMs = 2000;

/**
 * Writes a line when a task has taken two seconds, again every 30 s, and when it ends; nothing for shorter tasks.
 */
export function createProgress(write: (line: string) => void): Progress {
  return {
    async during(task, work, howFar = () => Promise.resolve(undefined)) {
      const start = performance.now();
      const seconds = () => `${((performance.now() - start) / 1000).toFixed(0)} s`;
      let [said, ended] = [false, false];
      const say = async () => {
        const far = said ? await howFar() : undefined;
        if (ended) return;
        write(
          said ? `podvm: still ${task} (${[seconds(), far].filter(Boolean).join(', ')})\n` : `podvm: ${task} ...\n`,
        );
        said = true;
        timer = setTimeout(() => void say(), 30_000);
      };
      let timer = setTimeout(() => void say(), quietMs);
      try {
        const result = await work();
        if (said) write(`podvm: ${task}: done in ${seconds()}\n`);
        return result;
      } finally {
        ended = true;
        clearTimeout(timer);
      }
    },
  };
}
