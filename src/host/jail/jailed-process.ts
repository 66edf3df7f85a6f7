import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import type { Readable, Stream } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';
import { type GuestText, guestText } from '#base/guest-text.ts';
import { closeInheritedDescriptors } from './inherited-descriptors.ts';
import { identify, type ProcessIdentity } from '../process/process-identity.ts';
import { giveBytes } from '../process/run.ts';
import { startChild } from '../process/start-child.ts';

/** End of the process. One that is not our child leaves no exit code: `unknown`. */
export type ProcessEnd = number | 'unknown' | NodeJS.Signals;

const pidReportDeadlineMs = 10_000;
const logTailBytes = 16 * 1024;
const logTailLines = 12;

export interface JailedCommand {
  /** Name for messages, such as "the VMM". */
  readonly what: string;
  /** Command that ends in a bubblewrap with `--info-fd 3`. */
  readonly command: readonly string[];
  /**
   * File for its output, which is replaced. A pipe to this process would end the jailed one if it outlives this one.
   */
  readonly output: string;
  /** Standard input, if the stream has a descriptor; default: none. */
  readonly stdin?: Stream;
  /** Descriptors, or bytes to be read, that become its descriptors 4, 5, ... */
  readonly inherited?: readonly (number | Uint8Array)[];
}

/** A jailed process that this process started. */
export interface JailedProcess {
  readonly identity: ProcessIdentity;
  /** Settles with the exit code when bubblewrap, our child, has ended, right after the process inside it. */
  readonly ended: Promise<ProcessEnd>;
}

/**
 * Starts the jailed command in a session of its own, and returns once its pid is known. It inherits only the listed
 * descriptors. Errors: those of `startChild`; `internal` with the log's last lines.
 * After an error no process is left.
 */
export async function spawnJailed(jailed: JailedCommand): Promise<JailedProcess> {
  const { child, ended, pid: report } = await launch(jailed);
  try {
    const pid = await report;
    const identity = await identify(pid);
    if (identity === undefined) throw new PodvmError('internal', `Cannot start ${jailed.what}: it ended at once`);
    return { identity, ended };
  } catch (error) {
    if (child.pid !== undefined) killGroup(child.pid);
    await ended;
    throw error;
  }
}

function openLog(path: string): Promise<FileHandle> {
  const flags = constants.O_CREAT | constants.O_TRUNC | constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW;
  return open(path, flags, 0o600);
}

interface Launched {
  readonly child: ChildProcess;
  readonly ended: Promise<ProcessEnd>;
  readonly pid: Promise<number>;
}

async function launch({ what, command, output, stdin, inherited = [] }: JailedCommand): Promise<Launched> {
  closeInheritedDescriptors();
  const [program = '', ...args] = command;
  await using log = await openLog(output);
  const child = await startChild(program, args, {
    failing: `Cannot start ${what}: cannot run ${program}`,
    detached: true, // a session of its own, so that it receives no signals of our terminal
    stdio: [
      stdin ?? 'ignore',
      log.fd,
      log.fd,
      'pipe',
      ...inherited.map((it) => (typeof it === 'number' ? it : 'pipe')),
    ],
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' },
  });
  for (const [at, given] of inherited.entries()) if (typeof given !== 'number') giveBytes(child, 4 + at, given);
  // Listeners are added in the same turn: a jail that cannot be built ends in it.
  const ended = new Promise<ProcessEnd>((resolve) => {
    child.once('exit', (code, signal) => resolve(code ?? signal ?? 'unknown'));
  });
  const pid = reportedPid(child, what, ended);
  pid.catch(() => undefined); // awaited once the log is closed
  return { child, ended, pid };
}

/** Returns the pid that bubblewrap writes as `{"child-pid": N}` before the program runs. */
async function reportedPid(child: ChildProcess, what: string, ended: Promise<ProcessEnd>): Promise<number> {
  const info = child.stdio[3] as Readable | null; // SAFE: stdio[3] was spawned as a pipe
  if (info === null || info === undefined) throw new PodvmError('internal', `Cannot start ${what}: no pid report`);
  let text = '';
  const report = new Promise<number>((resolve) => {
    info.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1').slice(0, 4096);
    });
    // Waits for the end: bubblewrap writes in pieces, and dies of SIGPIPE if the pipe closes early, leaving its child
    // waiting.
    info.once('end', () => {
      const match = /"child-pid":\s*(\d+)/.exec(text);
      if (match !== null) resolve(Number(match[1]));
    });
    info.on('error', () => undefined);
  });
  const deadline = new AbortController();
  // Node may report its exit before its output is read.
  const closed = new Promise<void>((resolve) => void info.once('close', () => resolve()));
  const failed = Promise.all([ended, closed]).then(() => {
    throw new PodvmError('internal', `Cannot start ${what}: its jail could not be built`);
  });
  const late = sleep(pidReportDeadlineMs, undefined, { signal: deadline.signal }).then(() => {
    throw new PodvmError('timeout', `Cannot start ${what}: no pid after ${pidReportDeadlineMs} ms`);
  });
  failed.catch(() => undefined);
  late.catch(() => undefined);
  try {
    return await Promise.race([report, failed, late]);
  } finally {
    deadline.abort();
    info.destroy();
  }
}

/** Kills bubblewrap and the jailed processes, which share the group of the first, with one signal. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // ESRCH: the group is already gone
  }
}

/** Last lines of a log; empty if there is none. */
export async function logTail(path: string): Promise<GuestText[]> {
  let file;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch {
    return []; // the log or its directory may not exist
  }
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.min(size, logTailBytes));
    await file.read(buffer, 0, buffer.length, size - buffer.length);
    return buffer
      .toString('utf8')
      .split('\n')
      .filter((line) => line.trim() !== '')
      .slice(-logTailLines)
      .map(guestText);
  } finally {
    await file.close();
  }
}
