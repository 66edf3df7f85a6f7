import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { poll } from './wait.ts';
import { statFields } from './process-stat.ts';

/** A process that cannot be mistaken for a later one with the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: start time in clock ticks since boot. */
  readonly startTicks: string;
}

const killDeadlineMs = 10_000;

/** Returns the pids of all present processes. Any of them may be gone when it is used. */
export async function allPids(): Promise<readonly number[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
}

/** Returns the process with that pid, even a zombie; undefined if there is none. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const found = await lookUp(pid);
  return found === undefined ? undefined : { pid, startTicks: found.startTicks };
}

/** Whether exactly this process runs; a zombie does not. */
export async function isRunning({ pid, startTicks }: ProcessIdentity): Promise<boolean> {
  const found = await lookUp(pid);
  return found !== undefined && found.startTicks === startTicks && found.state !== 'Z' && found.state !== 'X';
}

/**
 * Whether SIGSTOP or a debugger has stopped exactly this process. Synchronous, because it is called often and takes a
 * tenth of the time.
 */
export function isStopped({ pid, startTicks }: ProcessIdentity): boolean {
  try {
    const found = fieldsOf(readFileSync(`/proc/${pid}/stat`, 'latin1'));
    return found?.startTicks === startTicks && (found.state === 'T' || found.state === 't');
  } catch {
    return false; // it is gone
  }
}

async function lookUp(pid: number): Promise<{ startTicks: string; state: string } | undefined> {
  try {
    return fieldsOf(await readFile(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return undefined; // ENOENT, or ESRCH while reading: both mean that it is gone
  }
}

function fieldsOf(text: string): { startTicks: string; state: string } | undefined {
  const field = statFields(text);
  const [state, startTicks] = [field(3), field(22)];
  return state === undefined || startTicks === undefined ? undefined : { startTicks, state };
}

/**
 * Sends SIGKILL if the pid is still that process, and waits until it is gone. Errors: `internal` if it does not end.
 */
export async function killProcess(identity: ProcessIdentity): Promise<void> {
  if (!(await isRunning(identity))) return;
  signalProcess(identity.pid);
  const deadline = AbortSignal.timeout(killDeadlineMs);
  await waitUntilGone(identity, deadline);
  if (await isRunning(identity)) {
    throw new PodvmError('internal', `Cannot end process ${identity.pid}: alive ${killDeadlineMs} ms after SIGKILL`, {
      fix: 'A process that ignores SIGKILL waits in the kernel; look at its stack in /proc and at dmesg.',
    });
  }
}

function signalProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // SAFE: kill throws system errors only
  }
}

/** Resolves when the process is gone or the signal aborts. Polls 100 times a second at first, later twice. */
export async function waitUntilGone(identity: ProcessIdentity, signal: AbortSignal): Promise<void> {
  await poll(async () => ((await isRunning(identity)) ? undefined : true), { everyMs: 10, slowestMs: 500, signal });
}
