import * as v from 'valibot';
import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import { type RunCommand, type RunEvent, type RunRequestInput, runEventSchema, stdoutStream } from '#api/run.ts';
import { type Client, fromErrorBody } from './client.ts';
import { OutputPrinter } from './output-printer.ts';
import { type Terminal, fixLine, write } from './terminal.ts';

export interface RunOptions {
  readonly files: RunRequestInput['files'];
  readonly network: 'cni' | 'none';
  /** Say what happens to the pods, not only what goes wrong. */
  readonly verbose: boolean;
}

/** What a shell shows for a program that SIGINT ended. */
const interruptedCode = 130;
/** WebSocket's close code (RFC 6455, 7.4.1). */
const messageTooBig = 1009;

/** `podvm run`: returns the exit code. Ctrl-C terminates, a second one kills. */
export async function runCommand(client: Client, options: RunOptions, terminal: Terminal): Promise<number> {
  const request: RunRequestInput = { files: options.files, network: options.network };
  const socket = client.open('/v1/run');
  const printer = new OutputPrinter(terminal, terminal.hasColour);
  const onInterrupt = interrupter(socket, terminal);
  process.on('SIGINT', onInterrupt);
  process.on('SIGTERM', onInterrupt);
  try {
    const session = new RunSession(printer, options.verbose, terminal);
    const code = await session.follow(socket, JSON.stringify(request));
    return onInterrupt.count() > 0 && code === 0 ? interruptedCode : code;
  } finally {
    await printer.flush();
    process.off('SIGINT', onInterrupt);
    process.off('SIGTERM', onInterrupt);
  }
}

function interrupter(socket: WebSocket, terminal: Terminal): (() => void) & { count(): number } {
  let count = 0;
  const command = (name: RunCommand['command']) => {
    if (socket.readyState === socket.OPEN) socket.send(JSON.stringify({ command: name } satisfies RunCommand));
    else if (socket.readyState === socket.CONNECTING) socket.terminate();
  };
  const onSignal = () => {
    count += 1;
    terminal.stderr.write(count === 1 ? 'podvm: stopping (again to kill at once)\n' : 'podvm: killing\n');
    command(count === 1 ? 'terminate' : 'kill');
  };
  return Object.assign(onSignal, { count: () => count });
}

function closedError(code: number): PodvmError {
  if (code !== messageTooBig) return new PodvmError('unavailable', 'Cannot run: podvm went away');
  return new PodvmError('invalid', 'Cannot run: the files are larger than podvm takes at once', {
    fix: 'Run them one after the other.',
  });
}

/** Prints what comes over one connection, in order, no faster than the terminal takes it. */
class RunSession {
  readonly #printer: OutputPrinter;
  readonly #verbose: boolean;
  readonly #terminal: Terminal;
  /** What events said. */
  readonly #told = new Set<string>();

  constructor(printer: OutputPrinter, verbose: boolean, terminal: Terminal) {
    this.#printer = printer;
    this.#verbose = verbose;
    this.#terminal = terminal;
  }

  async follow(socket: WebSocket, request: string): Promise<number> {
    return await new Promise<number>((resolve, reject) => {
      let queue: Promise<void> = Promise.resolve();
      let waiting = 0;
      socket.once('open', () => socket.send(request));
      socket.on('message', (data, isBinary) => {
        const frame = Buffer.isBuffer(data) ? data : Buffer.concat(Array.isArray(data) ? data : [Buffer.from(data)]);
        waiting += 1;
        if (waiting >= 16) socket.pause();
        queue = queue
          .then(() => (isBinary ? this.#output(frame) : this.#event(frame.toString('utf8'), resolve, reject)))
          .catch(reject)
          .finally(() => {
            waiting -= 1;
            if (waiting === 0) socket.resume();
          });
      });
      socket.once('error', (cause) => reject(new PodvmError('unavailable', `Cannot run: ${cause.message}`, { cause })));
      socket.once('close', (code) => {
        void queue.then(() => reject(closedError(code)));
      });
    });
  }

  async #output(frame: Buffer): Promise<void> {
    await this.#printer.print(
      frame.readUInt16BE(1),
      frame[0] === stdoutStream ? 'stdout' : 'stderr',
      frame.subarray(3),
    );
  }

  async #event(json: string, resolve: (code: number) => void, reject: (error: unknown) => void): Promise<void> {
    const event = v.parse(runEventSchema, JSON.parse(json));
    switch (event.event) {
      case 'source':
        this.#printer.addSource(event.number, `${event.pod}/${event.container}`);
        return;
      case 'warning':
        await write(this.#terminal.stderr, `podvm: warning: ${event.message}\n`);
        return;
      case 'pod':
        await this.#podEvent(event);
        return;
      case 'podRefused':
        for (const problem of event.problems) {
          await write(this.#terminal.stderr, `podvm: pod ${event.pod} is not run: ${problem}\n`);
        }
        return;
      case 'podFinished':
        await this.#podFinished(event);
        return;
      case 'finished':
        resolve(event.exitCode);
        return;
      case 'failed':
        reject(fromErrorBody(event.error));
    }
  }

  async #podEvent({ pod, detail }: RunEvent & { event: 'pod' }): Promise<void> {
    if (detail.type === 'Normal' && !this.#verbose) return;
    const where = detail.container === undefined ? pod : `${pod}/${detail.container}`;
    this.#told.add(detail.message);
    const fix = detail.fix === undefined ? '' : `${fixLine(detail.fix)}\n`;
    await write(this.#terminal.stderr, `podvm: ${where}: ${detail.reason}: ${detail.message}\n${fix}`);
  }

  async #podFinished({ pod, exitCode, reason }: RunEvent & { event: 'podFinished' }): Promise<void> {
    if (exitCode === 0 && !this.#verbose) return;
    const why = this.#told.has(reason) ? '' : `: ${reason}`; // an event has said it
    await write(this.#terminal.stderr, `podvm: pod ${pod} ended with ${exitCode}${why}\n`);
  }
}
