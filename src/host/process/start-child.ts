import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { type ErrorKind, PodvmError } from '#base/errors.ts';
import { descriptors, shortOfDescriptors } from './descriptors.ts';

export interface StartChildOptions extends SpawnOptions {
  /** Beginning of the error's message; default: `Cannot run <program>`. */
  readonly failing?: string;
}

/**
 * Starts a program, and resolves as soon as it runs, so that the caller misses neither output nor exit. Only this file
 * calls `spawn`: a child that cannot be started would end this process if nothing listened for its error. Errors:
 * `failedPrecondition` if the program does not exist; `exhausted` if the node or this process has no descriptor,
 * process or memory left; `internal`.
 */
export async function startChild(
  program: string,
  args: readonly string[],
  { failing = `Cannot run ${program}`, ...options }: StartChildOptions,
): Promise<ChildProcess> {
  // Node leaks the pipes of a child that it cannot open for lack of descriptors, so a full table is refused first.
  if (!descriptors.makeRoom(descriptorsFor(options))) throw shortOfDescriptors(failing);
  try {
    const child = spawn(program, args, options);
    const started = once(child, 'spawn');
    child.on('error', () => undefined); // later errors are of signals; a failed start rejects `started`
    await started;
    return child;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EMFILE') descriptors.ranOut();
    throw explain(failing, cause);
  }
}

/**
 * Number of descriptors for the start: two for each pipe and for libuv's own, and some for threads that open files in
 * between.
 */
function descriptorsFor({ stdio }: SpawnOptions): number {
  return 2 * (Array.isArray(stdio) ? stdio.length : 3) + 6;
}

/** Whether the error comes from writing to a program that no longer reads. */
export function isDeaf(error: unknown): boolean {
  const { code = '' } = error as NodeJS.ErrnoException; // SAFE: absent in other errors
  // A pipe of a child is a socket here: its end can be reset as well as closed.
  return ['EPIPE', 'ECONNRESET', 'ECANCELED', 'ERR_STREAM_PREMATURE_CLOSE'].includes(code);
}

interface Reason {
  readonly kind: ErrorKind;
  readonly why: string;
  readonly fix: string;
}

const reasons: Readonly<Record<string, Reason>> = {
  ENOENT: {
    kind: 'failedPrecondition',
    why: 'no such program',
    fix: 'Run `podvm setup`, which installs what is missing.',
  },
  ENFILE: {
    kind: 'exhausted',
    why: 'the node has no file descriptor left',
    fix: 'Raise the sysctl `fs.file-max`, or end programs that hold many.',
  },
  EAGAIN: {
    kind: 'exhausted',
    why: 'the node allows podvm no more processes',
    fix: 'Raise the limit (`TasksMax` of its service, `ulimit -u`, the sysctl `kernel.pid_max`), or stop some pods.',
  },
  ENOMEM: { kind: 'exhausted', why: 'the node has no memory left', fix: 'Stop some pods, or add memory.' },
};

function explain(failing: string, cause: unknown): PodvmError {
  const { code = '', message } = cause as NodeJS.ErrnoException; // SAFE: only read
  if (code === 'EMFILE') return shortOfDescriptors(failing);
  const reason = reasons[code];
  if (reason === undefined) return new PodvmError('internal', `${failing}: ${message}`, { cause });
  return new PodvmError(reason.kind, `${failing}: ${reason.why}`, { cause, fix: reason.fix });
}
