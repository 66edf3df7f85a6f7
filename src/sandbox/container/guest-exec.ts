import { openDeadline } from '#host/deadline.ts';
import type { Link } from '#link/link.ts';
import { openOutputStream, openStream } from './open-stream.ts';
import type { Exec, ExecSpec } from '../sandbox.ts';

interface ExecRequest {
  readonly guest: Link;
  readonly containerId: string;
  readonly execId: string;
  readonly exec: ExecSpec;
  /** Settles when the guest reports that the process ended. */
  readonly exitCode: Promise<number>;
}

/** Deadline of requests about a running process from a caller without one, in `ms`. */
const wishMs = 30_000;
/** Maximum size of a terminal, in each direction. */
const maxCells = 10_000;

/** A terminal's size within a guest's limits: some clients send none, or more cells than a screen has. */
export function cellsOf<T extends Pick<ExecSpec, 'columns' | 'rows'>>({ columns, rows }: T) {
  const within = (cells: number) => Math.min(maxCells, Math.max(1, Math.trunc(cells) || 1));
  return {
    ...(columns === undefined ? {} : { columns: within(columns) }),
    ...(rows === undefined ? {} : { rows: within(rows) }),
  } as { [K in keyof T & ('columns' | 'rows')]: T[K] }; // SAFE: each is present if it was given
}

/** Starts a process in a running container. Errors: the agent's; then nothing of it is left. */
export async function startExec(request: ExecRequest, signal: AbortSignal): Promise<Exec> {
  const { guest, containerId, execId, exec, exitCode } = request;
  const stdin = exec.stdin ? openStream(guest) : undefined;
  const stdout = openOutputStream(guest);
  const stderr = exec.tty ? undefined : openOutputStream(guest);
  try {
    await guest.call(
      'startExec',
      {
        containerId,
        execId,
        args: [...exec.command],
        ...(exec.env === undefined ? {} : { env: [...exec.env] }),
        ...(exec.workingDir === undefined ? {} : { cwd: exec.workingDir }),
        tty: exec.tty,
        ...cellsOf(exec),
        stdio: { stdin: stdin?.id ?? 0, stdout: stdout.id, stderr: stderr?.id ?? 0 },
      },
      signal,
    );
  } catch (error) {
    for (const stream of [stdin, stdout, stderr]) stream?.destroy();
    throw error;
  }
  return {
    ...(stdin === undefined ? {} : { stdin }),
    stdout,
    ...(stderr === undefined ? {} : { stderr }),
    exited: exitCode.then((code) => {
      stdin?.destroy(); // its reader is gone
      return { exitCode: code };
    }),
    async resize(columns, rows) {
      const size = { containerId, execId, ...cellsOf({ columns, rows }) };
      using deadline = openDeadline(wishMs);
      await guest.call('resize', size, deadline.signal);
    },
    async kill(signalNumber) {
      const params = { containerId, execId, signal: signalNumber };
      using deadline = openDeadline(wishMs);
      await guest.call('signalExec', params, deadline.signal);
    },
  };
}
