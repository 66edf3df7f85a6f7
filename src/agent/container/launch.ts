import type { ChildExit, Engine } from '#engine/engine.ts';
import { ProcessIo, type ProcessStreams } from '../io/process-io.ts';
import type { Children } from '../process/children.ts';

/** A process that was made in a container. */
export interface StartedProcess {
  readonly pid: number;
  /** Master end of its terminal, or -1. */
  readonly terminal: number;
}

/** The first process of a container, or a command in it. */
export interface Process {
  readonly pid: number;
  readonly io: ProcessIo;
  hasExited: boolean;
}

export interface LaunchParts {
  readonly engine: Engine;
  readonly children: Children;
}

interface Launch {
  readonly tty: boolean;
  readonly size: {
    readonly columns?: number | undefined;
    readonly rows?: number | undefined;
    readonly keepsOutput: boolean;
  };
  readonly streams: ProcessStreams;
  readonly onExit: (exit: ChildExit) => void;
}

/**
 * Makes a process with pipes or a terminal, and waits for its exit. `start` gets its standard streams; with a terminal,
 * none.
 */
export async function launch(
  { engine, children }: LaunchParts,
  start: (fds: readonly [number, number, number]) => Promise<StartedProcess>,
  { tty, size, streams, onExit }: Launch,
): Promise<Process> {
  const io = new ProcessIo(engine, size);
  const fds = tty ? ([-1, -1, -1] as [number, number, number]) : io.makePipes(streams);
  try {
    return await children.expecting(async () => {
      const { pid, terminal } = await start(fds);
      if (tty) io.useTerminal(terminal, size);
      io.attach(streams);
      const process: Process = { pid, io, hasExited: false };
      children.onExit(pid, (exit) => {
        process.hasExited = true;
        io.processGone();
        onExit(exit);
      });
      return process;
    });
  } catch (error) {
    io.close();
    throw error;
  } finally {
    for (const fd of fds) if (fd >= 0) engine.close(fd);
  }
}
