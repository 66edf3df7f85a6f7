import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { descriptors } from './descriptors.ts';
import { poll } from '../wait.ts';
import { stateOf } from './process-stat.ts';

/** A process that cannot be mistaken for a later one with the same pid. */
export const processIdentitySchema = v.object({
  pid: v.pipe(v.number(), v.integer(), v.minValue(1)),
  /** Field 22 of /proc/PID/stat: start time in clock ticks since boot. */
  startTicks: v.string(),
});
export type ProcessIdentity = Readonly<v.InferOutput<typeof processIdentitySchema>>;

const killDeadlineMs = 10_000;
/** Errors that tell nothing about the process. */
const lacking: ReadonlySet<string> = new Set(['EMFILE', 'ENFILE', 'ENOMEM']);

/** Returns the pids of all present processes. Any of them may be gone when it is used. */
export async function allPids(): Promise<readonly number[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
}

/** Returns the process with that pid, even a zombie; undefined if there is none. Errors: those of `readProcessFile`. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const found = await lookUp(pid);
  return found === undefined ? undefined : { pid, startTicks: found.startTicks };
}

/** Whether exactly this process runs; a zombie does not. Errors: those of `readProcessFile`. */
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
    const found = stateOf(readFileSync(`/proc/${pid}/stat`, 'latin1'));
    return found?.startTicks === startTicks && (found.state === 'T' || found.state === 't');
  } catch {
    return false; // it is gone
  }
}

async function lookUp(pid: number): Promise<{ startTicks: string; state: string } | undefined> {
  const text = await readProcessFile(pid, 'stat');
  return text === undefined ? undefined : stateOf(text);
}

/**
 * Reads a file of a process in /proc, if need be with the reserve of descriptors. Undefined when the process is gone.
 * Errors: `EMFILE`, `ENFILE`, `ENOMEM`, which must not be taken for its end.
 */
export async function readProcessFile(pid: number, file: string): Promise<string | undefined> {
  const read = () => readFile(`/proc/${pid}/${file}`, 'latin1');
  try {
    return await read().catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EMFILE') throw error;
      descriptors.ranOut();
      return read();
    });
  } catch (error) {
    if (lacking.has((error as NodeJS.ErrnoException).code ?? '')) throw error; // SAFE: only read
    return undefined; // ENOENT, or ESRCH while reading
  }
}

/**
 * Sends SIGKILL if the pid is still that process, and waits until it is gone. Errors: `internal` if it does not
 * end, and those of `readProcessFile`.
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

/** Freezes exactly this process with SIGSTOP, or lets it run again. Does nothing when it is gone. */
export async function freezeProcess(identity: ProcessIdentity, isFrozen: boolean): Promise<void> {
  if (await isRunning(identity)) signalProcess(identity.pid, isFrozen ? 'SIGSTOP' : 'SIGCONT');
}

/** Sends a signal to exactly this process if it handles that signal: another process would end by it. */
export async function signalIfHandled(identity: ProcessIdentity, signal: number): Promise<void> {
  const status = await readProcessFile(identity.pid, 'status');
  if (status === undefined || !handles(status, signal)) return;
  if (await isRunning(identity)) signalProcess(identity.pid, signal);
}

/** Reads the mask `SigCgt` of /proc/PID/status (proc(5)): bit 0 is signal 1. */
function handles(status: string, signal: number): boolean {
  const [, mask = '0'] = /^SigCgt:\s*([0-9a-f]+)$/m.exec(status) ?? [];
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}

function signalProcess(pid: number, signal: NodeJS.Signals | number = 'SIGKILL'): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // SAFE: kill throws system errors only
  }
}

/**
 * Resolves when the process is gone or the signal aborts. Polls each millisecond at first, later twice a second. A process that
 * cannot be looked up counts as running.
 */
export async function waitUntilGone(identity: ProcessIdentity, signal: AbortSignal): Promise<void> {
  const isGone = async () => ((await isRunning(identity).catch(() => true)) ? undefined : true);
  await poll(isGone, { everyMs: 1, slowestMs: 500, signal });
}
