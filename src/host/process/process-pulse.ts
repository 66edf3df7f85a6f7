import { readdir, readFile } from 'node:fs/promises';
import type { ProcessIdentity } from './process-identity.ts';
import { stateOf } from './process-stat.ts';

/** Activity of a process and its threads so far. The difference of two pulses is the activity in between. */
export interface ProcessPulse {
  /** Whether SIGSTOP or a debugger has stopped it. */
  readonly isStopped: boolean;
  /** Whether a thread waits in the kernel without reacting to signals, usually for a disk. */
  readonly waitsForDisk: boolean;
  /** Time on a processor, summed over threads, in `ms`. */
  readonly ranMs: number;
  /** Time in which threads were ready to run but had no processor, summed over threads, in `ms`. */
  readonly waitedMs: number;
}

/** Reads the pulse of a process; undefined once it is gone. */
export async function readPulse({ pid, startTicks }: ProcessIdentity): Promise<ProcessPulse | undefined> {
  const main = stateOf(await read(`/proc/${pid}/stat`));
  if (main?.startTicks !== startTicks) return undefined;
  const threads = await Promise.all(
    (await readdir(`/proc/${pid}/task`).catch(() => [])).map(async (thread) => {
      const path = `/proc/${pid}/task/${thread}`;
      const [stat, times] = await Promise.all([read(`${path}/stat`), read(`${path}/schedstat`)]);
      const [ran = 0, waited = 0] = times.split(' ').map(Number); // in nanoseconds (sched-stats.rst)
      return { waitsForDisk: stateOf(stat)?.state === 'D', ran, waited };
    }),
  );
  const sum = (of: (thread: (typeof threads)[number]) => number) =>
    threads.reduce((all, thread) => all + of(thread), 0) / 1e6;
  return {
    isStopped: main.state === 'T' || main.state === 't',
    waitsForDisk: threads.some(({ waitsForDisk }) => waitsForDisk),
    ranMs: sum(({ ran }) => ran),
    waitedMs: sum(({ waited }) => waited),
  };
}

/** Returns '' for a process or thread that has ended. */
const read = (path: string) => readFile(path, 'latin1').catch(() => '');
