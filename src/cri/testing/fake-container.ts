import { PassThrough, Transform } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import type { Container, Exec, ExecSpec, OutputChunk } from '#sandbox/sandbox.ts';
import { Awaited } from './streaming-client.ts';
import type { Attachment, AttachTarget } from '../streaming/streaming.ts';

/** A process played by a test: it records input, writes output, and exits. */
export class FakeProcess {
  readonly spec: ExecSpec;
  readonly stdin = new Transform({
    highWaterMark: 64 * 1024,
    transform: (chunk: Buffer, _encoding, done) => {
      done(null, chunk);
      this.awaited.changed();
    },
  });
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  readonly sizes: string[] = [];
  readonly signals: number[] = [];
  readonly awaited = new Awaited();
  readonly #exit = Promise.withResolvers<{ readonly exitCode: number }>();
  #input = '';
  hasInputEnded = false;

  constructor(spec: ExecSpec) {
    this.spec = spec;
    for (const stream of [this.stdin, this.stdout, this.stderr]) stream.on('error', () => {});
  }

  /** Reads input from now on. */
  readInput(): this {
    this.stdin.on('data', (chunk: Buffer) => {
      this.#input += chunk.toString();
      this.awaited.changed();
    });
    this.stdin.once('end', () => {
      this.hasInputEnded = true;
      this.awaited.changed();
    });
    return this;
  }

  get input(): string {
    return this.#input;
  }

  exit(exitCode: number): void {
    this.stdout.end();
    this.stderr.end();
    this.stdin.destroy();
    this.#exit.resolve({ exitCode });
  }

  get exec(): Exec {
    return {
      ...(this.spec.stdin ? { stdin: this.stdin } : {}),
      stdout: this.stdout,
      ...(this.spec.tty ? {} : { stderr: this.stderr }),
      exited: this.#exit.promise,
      resize: (columns, rows) => {
        this.sizes.push(`${columns}x${rows}`);
        this.awaited.changed();
        return Promise.resolve();
      },
      kill: (signalNumber) => {
        this.signals.push(signalNumber);
        if (signalNumber === 9) this.exit(137);
        this.awaited.changed();
        return Promise.resolve();
      },
    };
  }
}

/** A container in which a test plays every process. */
export class FakeContainer implements Pick<Container, 'exec'>, AttachTarget {
  readonly processes: FakeProcess[] = [];
  readonly awaited = new Awaited();
  /** Its own input, output and terminal. */
  readonly main = new FakeProcess({ command: [], tty: false, stdin: true });
  readonly followers = new Set<(chunk: OutputChunk) => Promise<void>>();
  readonly #outputEnded = Promise.withResolvers<void>();
  stdinOnce = true;
  detached = 0;
  refusal: PodvmError | undefined;
  /** Promise that starts wait for. */
  startable: Promise<void> = Promise.resolve();

  async exec(spec: ExecSpec, signal: AbortSignal): Promise<Exec> {
    if (this.refusal !== undefined) throw this.refusal;
    const process = new FakeProcess(spec);
    this.processes.push(process);
    this.awaited.changed();
    await this.startable;
    signal.throwIfAborted();
    return process.exec;
  }

  async process(index = 0): Promise<FakeProcess> {
    return await this.awaited.until(`process ${index}`, () => this.processes[index]);
  }

  attach(): Promise<Attachment> {
    if (this.refusal !== undefined) return Promise.reject(this.refusal);
    return Promise.resolve({
      stdin: this.main.stdin,
      stdinOnce: this.stdinOnce,
      follow: (onChunk) => {
        this.followers.add(onChunk);
        this.awaited.changed();
        return { ended: this.#outputEnded.promise, stop: () => void this.followers.delete(onChunk) };
      },
      resize: (columns, rows) => this.main.exec.resize(columns, rows),
      detach: () => {
        this.detached += 1;
        this.awaited.changed();
      },
    });
  }

  async write(stream: OutputChunk['stream'], text: string): Promise<void> {
    await this.awaited.until('a follower', () => this.followers.size > 0);
    await Promise.all([...this.followers].map((follow) => follow({ stream, bytes: Buffer.from(text) })));
  }

  endOutput(): void {
    this.#outputEnded.resolve();
  }
}
