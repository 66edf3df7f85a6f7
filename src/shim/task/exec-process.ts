import { PodvmError } from '#base/errors.ts';
import type { Container, Exec } from '#sandbox/sandbox.ts';
import { Fifos, type IoPaths } from '../io/fifos.ts';
import type { ExecRequest, TaskProcess } from './process.ts';
import { ProcessLife } from './process-life.ts';

/** A command in a container, from its request on. */
export class ExecProcess implements TaskProcess {
  readonly pid: number;
  readonly paths: IoPaths;
  readonly life = new ProcessLife();
  readonly #request: ExecRequest;
  readonly #container: Container;
  #exec: Exec | undefined;
  #fifos: Fifos | undefined;

  constructor(request: ExecRequest, container: Container) {
    this.pid = request.pid;
    this.paths = request.paths;
    this.#request = request;
    this.#container = container;
  }

  async start(signal: AbortSignal): Promise<void> {
    if (this.life.state !== 'created' || this.#fifos !== undefined) {
      throw new PodvmError('failedPrecondition', 'Cannot start the command: it was started before');
    }
    const { command, env, workingDir, paths, size } = this.#request;
    const fifos = await Fifos.open(paths);
    this.#fifos = fifos;
    try {
      const stdin = paths.stdin !== '';
      const exec = await this.#container.exec(
        { command, env, workingDir, tty: paths.terminal, stdin, ...size },
        signal,
      );
      this.#exec = exec;
      this.life.start();
      if (exec.stdin !== undefined) fifos.feed(exec.stdin);
      void this.#run(exec, fifos);
    } catch (error) {
      fifos.close();
      this.life.end({ status: startErrorStatus, at: new Date() });
      throw error;
    }
  }

  async #run(exec: Exec, fifos: Fifos): Promise<void> {
    const carry = async (stream: 'stdout' | 'stderr', source: Exec['stderr']) => {
      if (source === undefined) return;
      try {
        for await (const bytes of source) await fifos.write({ stream, bytes: bytes as Uint8Array }); // SAFE: bytes of the link
      } catch {
        // its machine is lost, which its exit reports
      }
    };
    const carried = Promise.all([carry('stdout', exec.stdout), carry('stderr', exec.stderr)]);
    const { exitCode } = await exec.exited;
    this.life.end({ status: exitCode, at: new Date() });
    await carried;
    fifos.close();
  }

  async kill(signalNumber: number): Promise<void> {
    await this.#exec?.kill(signalNumber);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#exec?.resize(columns, rows);
  }

  endInput(): void {
    this.#fifos?.endInput();
  }

  remove(): Promise<void> {
    this.#fifos?.destroy();
    return Promise.resolve();
  }
}

/** Exit status of a process that could not be started, as with runc. */
const startErrorStatus = 128;
