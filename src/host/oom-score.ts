import { readFile, writeFile } from 'node:fs/promises';
import { identify, isRunning, type ProcessIdentity } from './process-identity.ts';

/** proc_pid_oom_score_adj(5): -1000 for never, 1000 for first. */
export const oomScores = { first: 1000, last: -1000 } as const;

/**
 * How ready the kernel is to kill the process when the host has no memory left, and with it the bubblewrap that waits for
 * it: their end is one. What they have otherwise is ours, which a service manager may have made the last to be killed.
 * Errors: the kernel's, EACCES where we may not make it less ready than others (it is as ready as them then). None if the
 * process is gone.
 */
export async function setOomScore(identity: ProcessIdentity, score: number): Promise<void> {
  const jail = await jailOf(identity.pid);
  for (const pid of [identity.pid, ...(jail === undefined ? [] : [jail])]) {
    try {
      await writeFile(`/proc/${pid}/oom_score_adj`, String(score));
    } catch (error) {
      if (score < 0) await writeFile(`/proc/${pid}/oom_score_adj`, '0').catch(() => undefined); // told of by the throw
      if (await isRunning(identity)) throw error;
    }
  }
}

/** Makes a helper of a process as ready to be killed as that is: neither is of use without the other. Errors: as above. */
export async function shareOomScore(of: number, helper: number): Promise<void> {
  const [score, found] = await Promise.all([
    readFile(`/proc/${of}/oom_score_adj`, 'latin1').catch(() => undefined),
    identify(helper),
  ]);
  if (score === undefined || found === undefined) return; // one of them has ended, which is told elsewhere
  await setOomScore(found, Number(score));
}

async function jailOf(pid: number): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
  const parent = Number(/^PPid:\t(\d+)$/m.exec(status)?.[1] ?? 0);
  if (parent <= 1) return undefined;
  const name = await readFile(`/proc/${parent}/comm`, 'latin1').catch(() => '');
  return name.trim() === 'bwrap' ? parent : undefined;
}
