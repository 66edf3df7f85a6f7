import * as v from 'valibot';
import type { WebSocket } from 'ws';
import { PodvmError } from '#base/errors.ts';
import type { RegistryLogins } from '#api/registry-logins.ts';
import { type RunCommand, type RunEvent, type RunRequestInput, runEventSchema, stdoutStream } from '#api/run.ts';
import { messageBytes } from '#host/socket/message-bytes.ts';
import { type Client, connectionClosed, connectionFailed, fromErrorBody } from '../client.ts';
import type { EndSignal, EndSignals } from '../terminal/end-signals.ts';
import { OutputPrinter } from '../terminal/output-printer.ts';
import { PullProgress } from './pull-progress.ts';
import { createRunInput, type InputWish, type RunInput } from './run-input.ts';
import { sizeOf } from '../terminal/terminal-input.ts';
import { type Terminal, fixLine, write } from '../terminal/terminal.ts';

export interface RunOptions {
  readonly files: RunRequestInput['files'];
  readonly network: 'cni' | 'none';
  /** Prints all events of the pods, not only failures. */
  readonly verbose: boolean;
  /** Leaves the pods to the node, and prints their names. */
  readonly detach: boolean;
  readonly removeAtEnd: boolean;
  /** Says nothing of pulls that take long. */
  readonly quiet: boolean;
  /** Names of the images of the pods. */
  readonly imageNames: () => Promise<readonly string[]>;
  /** The user's, for the images of the pods. */
  readonly logins?: RegistryLogins;
  readonly isOfImage: boolean;
  /** Present only for an image: the containers of files get no input. */
  readonly input?: InputWish;
}

/** WebSocket's close code (RFC 6455, 7.4.1). */
const messageTooBig = 1009;

/**
 * Runs `podvm run` and returns the exit code. Ctrl-C terminates the pods; a second one, or Ctrl-\, kills them. When the
 * terminal closes or the output has no reader, the pods are terminated once. Ctrl-P Ctrl-Q leave a container that has the
 * terminal to the node.
 */
export async function runCommand(
  client: Client,
  options: RunOptions,
  terminal: Terminal,
  ends: EndSignals,
): Promise<number> {
  const { files, network, detach, removeAtEnd, logins, input } = options;
  const terminalSize = input?.hasTerminal === true ? sizeOf(terminal) : undefined;
  const request: RunRequestInput = {
    files,
    network,
    // Sent only if requested, because a node of an earlier version refuses unknown fields.
    ...(detach ? { detach } : {}),
    ...(removeAtEnd ? { removeAtEnd } : {}),
    ...(logins === undefined ? {} : { logins }),
    ...(terminalSize === undefined ? {} : { terminalSize }),
  };
  const socket = client.open('/v1/run');
  const leaveTerminal = () => sendCommand(socket, 'detach');
  using runInput = createRunInput(client, detach ? undefined : input, terminal, leaveTerminal);
  const printer = new OutputPrinter(terminal, terminal.hasColour);
  await using progress = options.quiet ? undefined : new PullProgress(client, options.imageNames, terminal, true);
  const say = (text: string) => {
    void progress?.clear();
    terminal.stderr.write(runInput.lines(text));
  };
  const leave = ends.listen(ender(socket, say));
  try {
    const session = new RunSession(printer, { ...options, progress }, terminal, runInput);
    socket.once('open', () => socket.send(JSON.stringify(request)));
    const code = await session.follow(socket);
    return ends.exitCode !== undefined && code === 0 ? ends.exitCode : code;
  } finally {
    await progress?.[Symbol.asyncDispose](); // before the rest of the output
    await printer.flush();
    leave();
  }
}

function ender(socket: WebSocket, say: (text: string) => void): (signal: EndSignal) => void {
  let said: RunCommand['command'] | undefined;
  return (signal) => {
    const isPatient = said === undefined || signal === 'SIGHUP' || signal === 'SIGPIPE';
    const command = isPatient && signal !== 'SIGQUIT' ? 'terminate' : 'kill';
    if (said === command || said === 'kill') return;
    said = command;
    say(command === 'terminate' ? 'podvm: stopping (again to kill at once)\n' : 'podvm: killing\n');
    if (socket.readyState === socket.CONNECTING) socket.terminate();
    else sendCommand(socket, command);
  };
}

function sendCommand(socket: WebSocket, command: RunCommand['command']): void {
  if (socket.readyState === socket.OPEN) socket.send(JSON.stringify({ command } satisfies RunCommand));
}

function closedError(code: number, pods: ReadonlySet<string>): PodvmError {
  const [name] = pods;
  if (code !== messageTooBig) return name === undefined ? connectionClosed('run') : servingEnded(name, pods.size);
  return new PodvmError('invalid', 'Cannot run: the files are too large for one run', {
    fix: 'Run the files one by one.',
  });
}

function servingEnded(name: string, count: number): PodvmError {
  const which = count === 1 ? name : `${name} and ${count - 1} more`;
  return new PodvmError('unavailable', `Cannot follow ${which} any longer: the podvm that served has ended`, {
    fix: `Follow it again with \`podvm attach ${name}\`: pods of a node outlive it, and \`podvm ps -a\` lists them.`,
  });
}

export const detachedLine = (pod: string): string => `podvm: detached from ${pod}, which keeps running\n`;

/** Prints the messages of one connection in order, at the terminal's pace. */
export class RunSession {
  readonly #printer: OutputPrinter;
  readonly #verbose: boolean;
  readonly #isOfImage: boolean;
  /** The command asked for that, and not the keys of its user. */
  readonly #isDetached: boolean;
  readonly #terminal: Terminal;
  readonly #input: RunInput;
  readonly #progress: PullProgress | undefined;
  /** Reasons that events have reported. */
  readonly #told = new Set<string>();
  readonly #pods = new Set<string>();

  constructor(
    printer: OutputPrinter,
    {
      verbose,
      isOfImage,
      detach = false,
      progress,
    }: Pick<RunOptions, 'verbose' | 'isOfImage'> & {
      readonly detach?: boolean;
      readonly progress?: PullProgress | undefined;
    },
    terminal: Terminal,
    input: RunInput,
  ) {
    this.#printer = printer;
    this.#verbose = verbose;
    this.#isOfImage = isOfImage;
    this.#isDetached = detach;
    this.#terminal = terminal;
    this.#input = input;
    this.#progress = progress;
  }

  /** Resolves with the exit code. */
  async follow(socket: WebSocket): Promise<number> {
    return await new Promise<number>((resolve, reject) => {
      let queue: Promise<void> = Promise.resolve();
      let waiting = 0;
      socket.on('message', (data, isBinary) => {
        const frame = messageBytes(data);
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
      socket.once('error', (cause) => reject(connectionFailed('run', cause)));
      socket.once('close', (code) => {
        void queue.then(() => reject(closedError(code, this.#pods)));
      });
    });
  }

  async #output(frame: Buffer): Promise<void> {
    await this.#progress?.clear();
    await this.#printer.print(
      frame.readUInt16BE(1),
      frame[0] === stdoutStream ? 'stdout' : 'stderr',
      frame.subarray(3),
    );
  }

  async #event(json: string, resolve: (code: number) => void, reject: (error: unknown) => void): Promise<void> {
    const event = v.parse(runEventSchema, JSON.parse(json));
    if (event.event === 'source' || event.event === 'pod') this.#pods.add(event.pod);
    switch (event.event) {
      case 'source':
        this.#printer.addSource(event.number, `${event.pod}/${event.container}`);
        return;
      case 'warning':
        await this.#say(`podvm: warning: ${event.message}\n`);
        return;
      case 'pod':
        await this.#podEvent(event);
        return;
      case 'podRefused':
        for (const problem of event.problems) {
          await this.#say(`podvm: pod ${event.pod} was not started: ${problem}\n`);
        }
        return;
      case 'podDetached':
        await this.#podDetached(event.pod);
        return;
      case 'podFinished':
        await this.#podFinished(event);
        return;
      case 'object':
        await this.#progress?.clear();
        await write(this.#terminal.stdout, `${event.object} ${event.change}\n`);
        return;
      case 'differs': {
        const { printDifference } = await import('../terminal/print-difference.ts'); // most commands do not need it
        await printDifference(event, this.#terminal);
        return;
      }
      case 'finished':
        resolve(event.exitCode);
        return;
      case 'failed':
        reject(fromErrorBody(event.error));
    }
  }

  async #say(text: string): Promise<void> {
    await this.#progress?.clear();
    await write(this.#terminal.stderr, this.#input.lines(text));
  }

  async #podEvent({ pod, detail }: RunEvent & { event: 'pod' }): Promise<void> {
    if (detail.reason === 'Started') this.#progress?.started();
    if (detail.reason === 'Started' && this.#isOfImage) await this.#progress?.[Symbol.asyncDispose](); // the terminal is the container's
    if (detail.reason === 'Started' && detail.container !== undefined) this.#input.begin(pod, detail.container);
    if (detail.type === 'Normal' && !this.#verbose) return;
    const where = detail.container === undefined ? pod : `${pod}/${detail.container}`;
    this.#told.add(detail.message);
    const fix = detail.fix === undefined ? '' : `${fixLine(detail.fix)}\n`;
    await this.#say(`podvm: ${where}: ${detail.reason}: ${detail.message}\n${fix}`);
  }

  async #podDetached(pod: string): Promise<void> {
    await this.#progress?.clear();
    if (this.#isDetached) return await write(this.#terminal.stdout, `${pod}\n`);
    await this.#say(`\n${detachedLine(pod)}`); // the program may have left the cursor in a line
  }

  async #podFinished({ pod, exitCode, reason }: RunEvent & { event: 'podFinished' }): Promise<void> {
    if (exitCode === 0 && !this.#verbose) return;
    if (this.#isOfImage && reason === 'Error' && !this.#verbose) return; // the exit code of podvm says as much
    const why = this.#told.has(reason) ? '' : `: ${reason}`; // an event has reported it
    await this.#say(`podvm: pod ${pod} ended with code ${exitCode}${why}\n`);
  }
}
