import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import type { Writable } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { type GuestText, guestText, printable } from '#base/guest-text.ts';
import { fixOfOutput } from '../advice.ts';
import { openDeadline } from '../deadline.ts';
import { startChild } from './start-child.ts';

export interface RunOptions {
  readonly signal?: AbortSignal;
  /** Bytes or text for standard input; default: empty. */
  readonly input?: string | Uint8Array;
  /** Bytes to read that become its descriptors 3, 4, ... */
  readonly inherited?: readonly Uint8Array[];
  /** Whole environment of the child; default: a minimal one (PATH, LANG=C). */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Default 60,000 `ms`. */
  readonly timeoutMs?: number;
  /** Limit of output on either stream, which ends the child with an error; default 16 MiB. */
  readonly maxOutputBytes?: number;
  /** Exit codes that are not errors; default [0]. `any`: the caller checks them, and deaths by a signal too. */
  readonly okCodes?: readonly number[] | 'any';
}

export interface RunResult {
  /** Exit code; for a program that a signal ended 128 plus the signal's number, as in shells and bwrap. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const tailLines = 8;
const firstInherited = 3;

/** Writes these bytes to a descriptor that was opened as a pipe, and ends the pipe. */
export function giveBytes(child: ChildProcess, descriptor: number, bytes: Uint8Array | string): void {
  const pipe = child.stdio[descriptor] as Writable | null | undefined; // SAFE: it was opened as a pipe
  pipe?.on('error', () => undefined); // a program that does not read it shows that by its exit
  pipe?.end(bytes);
}

/**
 * Runs a program to its end and returns its output.
 * Errors: those of `startChild`, `timeout`, `cancelled`, `exhausted` (too much output), and
 * `internal` for a signal or an exit code outside `okCodes`, with the last lines of its standard error as `tail`.
 */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const failure = new PodvmError('internal', `Cannot run ${program}`); // created here so that its stack shows the caller
  const { timeoutMs = 60_000, maxOutputBytes = 16 * 1024 * 1024, okCodes = [0], inherited = [] } = options;
  using deadline = openDeadline(timeoutMs, options.signal);
  const { signal } = deadline;
  if (signal.aborted) throw stopped(program, options.signal, timeoutMs);

  const child = await startChild(program, args, {
    stdio: ['pipe', 'pipe', 'pipe', ...inherited.map(() => 'pipe' as const)],
    // A session of its own, so that Ctrl-C does not reach it and its children can be ended with it.
    detached: true,
    env: options.env ?? defaultEnv(),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  let bytes = 0;
  let overflow = false;
  const collect = (into: Buffer[]) => (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > maxOutputBytes) {
      overflow = true;
      kill();
    } else into.push(chunk);
  };
  child.stdout?.on('data', collect(stdout));
  child.stderr?.on('data', collect(stderr));
  giveBytes(child, 0, options.input ?? '');
  for (const [at, given] of inherited.entries()) giveBytes(child, firstInherited + at, given);

  let wasKilled = false; // its output may then be truncated, whatever its exit code
  const kill = () => {
    wasKilled = true;
    killWithChildren(child);
  };
  signal.addEventListener('abort', kill, { once: true });
  if (signal.aborted) kill();
  const code = await new Promise<number>((resolve) => {
    child.once('close', (exit, killedBy) => resolve(exitCodeOf(exit, killedBy)));
  }).finally(() => signal.removeEventListener('abort', kill));

  if (overflow) throw new PodvmError('exhausted', `Cannot run ${program}: more than ${maxOutputBytes} bytes of output`);
  if (wasKilled) throw stopped(program, options.signal, timeoutMs);
  const errorText = Buffer.concat(stderr).toString('utf8');
  if (okCodes === 'any' || okCodes.includes(code)) {
    return { code, stdout: Buffer.concat(stdout).toString('utf8'), stderr: errorText };
  }
  const tail = tailOf(errorText);
  const verb = args[0] !== undefined && !args[0].startsWith('-') ? ` ${args[0]}` : '';
  const ending = signalOf(code) ?? `it ended with code ${code}`;
  const words = printable(tail.at(-1) ?? '');
  const fix = fixOfOutput(errorText);
  throw new PodvmError('internal', `Cannot run ${program}${verb}: ${ending}${words === '' ? '' : `: ${words}`}`, {
    cause: failure,
    tail,
    ...(fix === undefined ? {} : { fix }),
  });
}

/** The last lines that a program wrote to standard error. */
export function tailOf(stderr: string): GuestText[] {
  const text = stderr.trimEnd();
  if (text === '') return [];
  return text.split('\n').slice(-tailLines).map(guestText);
}

const signalBase = 128;

/** Returns one number for an exit code or a signal. */
export function exitCodeOf(exit: number | null, killedBy: NodeJS.Signals | null): number {
  return exit ?? (killedBy === null ? -1 : signalBase + constants.signals[killedBy]);
}

/**
 * Returns `it was killed by SIGKILL` for the exit code of a program, or of its jail, that a signal ended; else
 * undefined.
 */
export function signalOf(code: number): string | undefined {
  const name = Object.entries(constants.signals).find(([, number]) => signalBase + number === code)?.[0];
  return name === undefined ? undefined : `it was killed by ${name}`;
}

/** Kills a program and its children. Processes in other sessions that hold its output are not waited for. */
function killWithChildren(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // the group is gone
  }
  for (const stream of child.stdio.slice(1)) stream?.destroy();
}

function stopped(program: string, callers: AbortSignal | undefined, timeoutMs: number): PodvmError {
  return callers?.aborted
    ? new PodvmError('cancelled', `Cannot run ${program}: cancelled`, { cause: callers.reason })
    : new PodvmError('timeout', `Cannot run ${program}: not done after ${timeoutMs} ms`);
}

/** Default environment of child processes: only PATH is inherited. */
export function defaultEnv(): Record<string, string> {
  return { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', HOME: '/root' };
}
