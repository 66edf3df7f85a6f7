import { readFile, writeFile } from 'node:fs/promises';
import { identify, isRunning, type ProcessIdentity } from './process-identity.ts';

/** Bounds of proc_pid_oom_score_adj(5): -1000 is never killed, 1000 is killed first. */
export const oomScores = { first: 1000, last: -1000 } as const;

/**
 * Sets the OOM score adjustment of a process and of the bubblewrap that waits for it, since one ends with the other.
 * They inherit the score of this process, which a service manager may have lowered. Errors: those of the kernel, EACCES
 * if the score may not be lowered (it is then 0 if possible). No error if the process is gone.
 */
export async function setOomScore(identity: ProcessIdentity, score: number): Promise<void> {
  const jail = await jailOf(identity.pid);
  for (const pid of [identity.pid, ...(jail === undefined ? [] : [jail])]) {
    try {
      await writeFile(`/proc/${pid}/oom_score_adj`, String(score));
    } catch (error) {
      if (score < 0) await writeFile(`/proc/${pid}/oom_score_adj`, '0').catch(() => undefined); // reported by the throw
      if (await isRunning(identity)) throw error;
    }
  }
}

/**
 * Gives a helper the same score as its process, since neither is useful without the other. Errors: as `setOomScore`.
 */
export async function shareOomScore(of: number, helper: number): Promise<void> {
  const [score, found] = await Promise.all([
    readFile(`/proc/${of}/oom_score_adj`, 'latin1').catch(() => undefined),
    identify(helper),
  ]);
  if (score === undefined || found === undefined) return; // one of them has ended: reported elsewhere
  await setOomScore(found, Number(score));
}

async function jailOf(pid: number): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
  const parent = Number(/^PPid:\t(\d+)$/m.exec(status)?.[1] ?? 0);
  if (parent <= 1) return undefined;
  const name = await readFile(`/proc/${parent}/comm`, 'latin1').catch(() => '');
  return name.trim() === 'bwrap' ? parent : undefined;
}
