import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { again, codeOf, ready, type Engine } from '#engine/engine.ts';
import type { Children } from '../process/children.ts';
import { afterPauses } from '../process/poll.ts';
import type { StartedProcess } from './launch.ts';

export const crunStateRoot = '/run/crun';
const workDirectory = '/run/podvm/crun';
/** Deadline of a call, in `ms`, counted in pauses (`afterPauses`). Making a container takes half a second of a processor. */
const deadlineMs = 120_000;
const maxLogBytes = 16 * 1024;

type Parts = Pick<
  Engine,
  | 'spawn'
  | 'kill'
  | 'readText'
  | 'writeExisting'
  | 'removeFile'
  | 'makeDirectories'
  | 'status'
  | 'setTimer'
  | 'clearTimer'
  | 'listenUnix'
  | 'accept'
  | 'receive'
  | 'watch'
  | 'close'
>;

export interface CrunCall {
  readonly id: string;
  readonly bundle: string;
  /** Standard streams for the container's process. -1: /dev/null. */
  readonly fds: readonly [number, number, number];
  /** Whether to also wait for the terminal's master end. */
  readonly tty: boolean;
}

/**
 * Calls crun from its sealed memfd (otherwise crun copies itself on every call), with the container's own standard
 * streams. crun writes errors to a log file.
 */
export class Crun {
  readonly #parts: Parts;
  readonly #children: Children;
  readonly #programFd: number;
  #calls = 0;
  /** Processes that create containers, by the container's id. */
  readonly #creating = new Map<string, number>();

  constructor(parts: Parts, children: Children, programFd: number) {
    this.#parts = parts;
    this.#children = children;
    this.#programFd = programFd;
    parts.makeDirectories(workDirectory, 0o700);
    parts.makeDirectories(crunStateRoot, 0o700);
  }

  /** Call it inside `Children.expecting`. Errors: `failedPrecondition` with crun's message; `timeout`. */
  async create(call: CrunCall): Promise<StartedProcess> {
    this.#calls += 1;
    const files = `${workDirectory}/${this.#calls}`;
    const [log, pidFile, socket] = [`${files}.log`, `${files}.pid`, `${files}.tty`];
    const terminal = call.tty ? new TerminalReceiver(this.#parts, socket) : undefined;
    let master = -1;
    try {
      await this.#run(
        call,
        [
          'crun',
          ...['--root', crunStateRoot, '--cgroup-manager', 'cgroupfs', '--log', log, '--log-format', 'json'],
          ...['create', '--bundle', call.bundle, '--pid-file', pidFile],
          ...(terminal === undefined ? [] : ['--console-socket', socket]),
          call.id,
        ],
        log,
      );
      const pid = Number(this.#parts.readText(pidFile, 32).trim());
      master = terminal?.take() ?? -1;
      return { pid, terminal: master };
    } finally {
      terminal?.close();
      for (const file of [log, pidFile, socket])
        if (this.#parts.status(file) !== undefined) this.#parts.removeFile(file);
    }
  }

  /**
   * Lets a created container run its command, as `crun start` does: its first process waits for a byte
   * from this FIFO. A process of crun would take twenty times as long. Errors: `failedPrecondition` if the process has ended
   * or was started before.
   */
  start(id: string): void {
    const fifo = `${crunStateRoot}/${id}/exec.fifo`;
    try {
      this.#parts.writeExisting(fifo, '1');
    } catch (cause) {
      const why = codeOf(cause) === 'ENXIO' ? 'it has ended' : 'it does not wait to be started';
      throw new PodvmError('failedPrecondition', `Cannot start container: ${why}`, { cause });
    }
    this.#parts.removeFile(fifo);
  }

  /** Ends a call that creates the container, which then fails. Does nothing if there is none. */
  endCreation(id: string): void {
    const pid = this.#creating.get(id);
    if (pid !== undefined) this.#parts.kill(pid, 9);
  }

  async #run(call: CrunCall, argv: readonly string[], log: string): Promise<void> {
    const pid = this.#parts.spawn({
      argv,
      programFd: this.#programFd,
      env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
      fds: call.fds,
      newSession: true,
    });
    this.#creating.set(call.id, pid);
    let isLate = false;
    const done = afterPauses(this.#parts, deadlineMs, () => {
      isLate = true;
      this.#parts.kill(pid, 9);
    });
    const exit = await this.#children.wait(pid);
    this.#creating.delete(call.id);
    done();
    if (isLate) throw new PodvmError('timeout', `Cannot create container: crun took over ${deadlineMs} ms`);
    if (exit.code !== 0) {
      throw new PodvmError('failedPrecondition', `Cannot create container: ${this.#lastWords(log, exit)}`);
    }
  }

  #lastWords(log: string, exit: { code: number | undefined; signal: number | undefined }): string {
    const ending = exit.code === undefined ? `crun died of signal ${exit.signal}` : `crun ended with ${exit.code}`;
    if (this.#parts.status(log) === undefined) return ending;
    try {
      const lines = this.#parts.readText(log, maxLogBytes).trim().split('\n');
      const messages = lines.map((line) => (JSON.parse(line) as { msg?: unknown }).msg);
      const last = messages.findLast((message) => typeof message === 'string');
      return typeof last === 'string' ? printable(last) : ending;
    } catch {
      return ending;
    }
  }
}

/** Receives the terminal's master end from crun (SCM_RIGHTS), as OCI runtimes send it. */
class TerminalReceiver {
  readonly #parts: Parts;
  readonly #listener: number;
  #connection = -1;
  #master = -1;

  constructor(parts: Parts, path: string) {
    this.#parts = parts;
    this.#listener = parts.listenUnix(path);
    parts.watch(this.#listener, ready.readable, () => this.#accept());
  }

  /** Returns the master end, -1 if none came; the caller then owns it. */
  take(): number {
    if (this.#master < 0) this.#accept(); // crun has ended, so everything it sent has arrived
    if (this.#master < 0 && this.#connection >= 0) this.#receive();
    const master = this.#master;
    this.#master = -1;
    return master;
  }

  close(): void {
    for (const fd of [this.#listener, this.#connection, this.#master]) if (fd >= 0) this.#parts.close(fd);
  }

  #accept(): void {
    if (this.#connection >= 0) return;
    const connection = this.#parts.accept(this.#listener);
    if (connection === again) return;
    this.#connection = connection;
    this.#parts.watch(connection, ready.readable, () => this.#receive());
  }

  #receive(): void {
    const { bytes, fds } = this.#parts.receive(this.#connection, new Uint8Array(256));
    for (const fd of fds) {
      if (this.#master < 0) this.#master = fd;
      else this.#parts.close(fd);
    }
    if (bytes === 0) {
      this.#parts.close(this.#connection);
      this.#connection = -1;
    }
  }
}
