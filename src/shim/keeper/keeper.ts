import { mkdir, open, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { type Clock, pause } from '#host/clock.ts';
import { isThere, readFileIfThere, replaceFile } from '#host/file/files.ts';
import { isServed } from '#host/socket/is-served.ts';
import type { Log } from '#host/log/log.ts';
import { identify, killProcess, processIdentitySchema } from '#host/process/process-identity.ts';
import { entryPoint, programDirectory } from '#host/program-files.ts';
import { defaultEnv } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import { poll } from '#host/wait.ts';
import type { FifoOutput } from '#sandbox/parts.ts';
import type { OutputChunk, OutputFifos } from '#sandbox/sandbox.ts';
import type { FifoKeeper } from '../io/fifo-keeper.ts';
import { type KeeperAnswer, type KeeperRequest, type KeeperSockets, keeperSocketsOf } from './keeper-sockets.ts';

export interface KeeperOptions {
  /** Socket to which containerd connects. */
  readonly socketPath: string;
  /** Private directory of the shim; made if missing. */
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Log;
}

const startTimeoutMs = 30_000;
const restartMs = 1_000;
/** A relay needs little; Node would take more because the host has more. */
const nodeFlags = ['--max-semi-space-size=1', '--max-old-space-size=128'];

export const recordsDirectoryOf = (directory: string): string => join(directory, 'tasks');

/** The keeper, as the daemon sees it: a process that is started once and found again by the next daemon. */
export class Keeper implements FifoKeeper, Disposable {
  readonly #options: KeeperOptions;
  readonly sockets: KeeperSockets;
  readonly #closing = new AbortController();
  #starting: Promise<void> | undefined;
  #watch: Socket | undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.sockets = keeperSocketsOf(options.socketPath);
  }

  /** Whether one runs, of this daemon or an earlier one. */
  async runs(): Promise<boolean> {
    return await isServed(this.sockets.keeper);
  }

  /** Starts it, unless it runs. It is started again when it ends. Errors: `timeout`, those of `startChild`. */
  async start(): Promise<void> {
    this.#starting ??= this.#start().finally(() => (this.#starting = undefined));
    await this.#starting;
  }

  async #start(): Promise<void> {
    if (this.#watch !== undefined) return;
    if (!(await this.runs())) await this.#launch();
    const { socket } = await this.#ask({ do: 'watch' });
    this.#watch = socket;
    socket.unref();
    socket.once('close', () => {
      this.#watch = undefined;
      const { signal } = this.#closing;
      if (signal.aborted) return;
      const { clock, log } = this.#options;
      log.warn('the keeper has ended: containerd considers its pods dead', { socket: this.sockets.shim });
      pause(clock, restartMs, signal)
        .then(() => this.start())
        .catch((error: unknown) => (signal.aborted ? undefined : log.error('keeper not started', error)));
    });
  }

  async #launch(): Promise<void> {
    const { directory, log } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const program = join(programDirectory, entryPoint('src/shim/keeper/main'));
    await using output = await open(join(directory, 'keeper.log'), 'w', 0o600);
    await rm(this.sockets.shim, { force: true }); // the new socket shows that the keeper serves
    const child = await startChild(
      process.execPath,
      [...nodeFlags, program, this.sockets.shim, recordsDirectoryOf(directory)],
      { detached: true, cwd: '/', env: defaultEnv(), stdio: ['ignore', 'ignore', output.fd] },
    );
    child.unref();
    const identity = await identify(child.pid ?? 0);
    await replaceFile(join(directory, identityFile), JSON.stringify(identity ?? {}));
    const signal = AbortSignal.any([AbortSignal.timeout(startTimeoutMs), this.#closing.signal]);
    const serves = async () => ((await isThere(this.sockets.shim)) ? true : undefined);
    if ((await poll(serves, { everyMs: 20, signal })) === true) {
      log.info('keeper started', { pid: child.pid ?? 0, socket: this.sockets.shim });
      return;
    }
    child.kill('SIGKILL');
    const said = (await readFileIfThere(join(directory, 'keeper.log'))) ?? '';
    throw new PodvmError('timeout', `Cannot start the keeper of ${this.sockets.shim}: ${said.trim().slice(-500)}`, {
      fix: 'See what its log, `shim/keeper.log` in the state directory, says.',
    });
  }

  /** Opens FIFOs for output, or continues with those of an earlier daemon. Errors: `invalid`, `unavailable`. */
  async openFifos({ stdout, stderr }: OutputFifos): Promise<FifoOutput> {
    await this.start();
    using undo = new DisposableStack();
    const carriers = new Map<OutputChunk['stream'], Carrier>();
    for (const [stream, path] of [
      ['stdout', stdout],
      ['stderr', stderr],
    ] as const) {
      if (path === undefined) continue;
      const carrier = await this.#carry(path);
      carriers.set(stream, carrier);
      undo.defer(() => void carrier.socket.end());
    }
    const owned = undo.move();
    return {
      logged: { stdout: carriers.get('stdout')?.written ?? 0, stderr: carriers.get('stderr')?.written ?? 0 },
      write: async ({ stream, bytes }) => await carriers.get(stream)?.write(bytes),
      [Symbol.asyncDispose]() {
        owned.dispose();
        return Promise.resolve();
      },
    };
  }

  async #carry(path: string): Promise<Carrier> {
    const { socket, written } = await this.#ask({ do: 'carry', path });
    const write = async (bytes: Uint8Array) =>
      await new Promise<void>((resolve, reject) => {
        socket.write(bytes, (error) => (error ? reject(lost(path, error)) : resolve()));
      });
    return { socket, written, write };
  }

  /** Keeps a FIFO for input open. Errors: as `openFifos`. */
  async hold(path: string): Promise<void> {
    await this.start();
    await this.#ask({ do: 'hold', path });
  }

  /** Closes a FIFO, after it has passed on its bytes. Never rejects. */
  async end(path: string): Promise<void> {
    await this.#tell({ do: 'end', path });
  }

  /** Closes a FIFO at once. Never rejects. */
  async forget(path: string): Promise<void> {
    await this.#tell({ do: 'forget', path });
  }

  async #tell(request: KeeperRequest): Promise<void> {
    try {
      await this.#ask(request);
    } catch (error) {
      this.#options.log.debug('keeper not told', { what: request.do, why: messageOf(error) }); // it holds nothing then
    }
  }

  async #ask(request: KeeperRequest): Promise<{ readonly socket: Socket; readonly written: number }> {
    const socket = connect(this.sockets.keeper);
    const closed = new AbortController();
    socket.once('close', () => closed.abort(new Error('it disconnected')));
    const answered = once(socket, 'data', { signal: closed.signal });
    const what = 'path' in request ? request.path : this.sockets.shim;
    socket.write(`${JSON.stringify(request)}\n`);
    let answer: KeeperAnswer;
    try {
      const [bytes] = (await answered) as [Buffer]; // SAFE: no encoding is set
      answer = JSON.parse(bytes.toString('utf8')) as KeeperAnswer; // SAFE: the keeper's own type
    } catch (cause) {
      socket.destroy();
      throw lost(what, cause);
    } finally {
      socket.on('error', () => undefined);
    }
    if (answer.error !== undefined) throw new PodvmError('invalid', answer.error);
    return { socket, written: answer.written };
  }

  /** Leaves it running for the next daemon. */
  [Symbol.dispose](): void {
    this.#closing.abort(new PodvmError('cancelled', 'podvm is stopping'));
    this.#watch?.destroy();
  }
}

interface Carrier {
  readonly socket: Socket;
  readonly written: number;
  write(bytes: Uint8Array): Promise<void>;
}

const lost = (path: string, cause: unknown) =>
  new PodvmError('unavailable', `Cannot reach the keeper of ${path}`, {
    cause,
    fix: 'Try again: podvm starts it again, and containerd starts pods again that it has lost.',
  });

const identityFile = 'keeper.json';

/** Ends the keeper of a state directory, if there is one. No task may be left. */
export async function endKeeper(directory: string, socketPath: string): Promise<void> {
  const text = await readFileIfThere(join(directory, identityFile));
  if (text === undefined) return;
  const found = v.safeParse(processIdentitySchema, JSON.parse(text));
  if (found.success) await killProcess(found.output);
  const { shim, keeper } = keeperSocketsOf(socketPath);
  for (const path of [shim, keeper]) await rm(path, { force: true });
  await rm(join(directory, identityFile), { force: true });
}
