import type { Stdio } from '#wire/container-params.ts';
import type { Params } from '#wire/messages.ts';
import type { Channel } from '../channel/channel.ts';
import type { AgentStream } from '../channel/stream.ts';
import type { Sockets } from '#engine/engine.ts';
import { SentOutput } from './sent-output.ts';
import { InputPump, inputUser, OutputPump, type OutputParts, outputUser } from './pumps.ts';

type Parts = OutputParts & Pick<Sockets, 'setWindowSize'>;

/** Streams of one process, opened before anything else so that early input finds them. */
export interface ProcessStreams {
  readonly stdin: AgentStream | undefined;
  readonly stdout: AgentStream | undefined;
  readonly stderr: AgentStream | undefined;
}

/** Bytes of each output since the process' start. */
export type OutputOffsets = NonNullable<Params<'attach'>['from']>;

/** Opens the streams of a process. Errors: `alreadyExists`, `exhausted`; no stream is open then. */
export function openStreams(channel: Channel, { stdin, stdout, stderr }: Stdio): ProcessStreams {
  const opened: AgentStream[] = [];
  const open = (id: number): AgentStream | undefined => {
    if (id === 0) return undefined;
    const stream = channel.openStream(id);
    opened.push(stream);
    return stream;
  };
  try {
    return { stdin: open(stdin), stdout: open(stdout), stderr: open(stderr) };
  } catch (error) {
    for (const stream of opened) stream.reset();
    throw error;
  }
}

export function resetStreams({ stdin, stdout, stderr }: ProcessStreams): void {
  for (const stream of [stdin, stdout, stderr]) stream?.reset();
}

/** The agent's ends of one process's standard streams. */
export class ProcessIo {
  readonly #parts: Parts;
  #stdin: InputPump | undefined;
  #stdout: OutputPump | undefined;
  #stderr: OutputPump | undefined;
  #terminal = -1;
  readonly #keepsOutput: boolean;

  /** `keepsOutput`: a host that takes over from another can request the output that the other did not acknowledge. */
  constructor(parts: Parts, { keepsOutput }: { readonly keepsOutput: boolean }) {
    this.#parts = parts;
    this.#keepsOutput = keepsOutput;
  }

  /**
   * Makes pipes for the given streams and returns the process' ends (-1: /dev/null), which the caller closes once the process
   * has them. Only those ends block.
   */
  makePipes(streams: ProcessStreams): [number, number, number] {
    const childEnds: [number, number, number] = [-1, -1, -1];
    if (streams.stdin !== undefined) {
      const { read, write } = this.#parts.pipe('write');
      childEnds[0] = read;
      this.#stdin = new InputPump(this.#parts, write);
    }
    if (streams.stdout !== undefined) {
      const { read, write } = this.#parts.pipe('read');
      childEnds[1] = write;
      this.#stdout = this.#outputPump(read);
    }
    if (streams.stderr !== undefined) {
      const { read, write } = this.#parts.pipe('read');
      childEnds[2] = write;
      this.#stderr = this.#outputPump(read);
      this.#stdout?.setBeside(this.#stderr);
      if (this.#stdout !== undefined) this.#stderr.setBeside(this.#stdout);
    }
    return childEnds;
  }

  /** Uses the terminal's master end. */
  useTerminal(
    master: number,
    size: { readonly columns?: number | undefined; readonly rows?: number | undefined },
  ): void {
    this.#parts.setNonBlocking(master, true);
    this.#terminal = master;
    if (size.columns !== undefined && size.rows !== undefined) this.resize(size.columns, size.rows);
    this.#stdin = new InputPump(this.#parts, this.#parts.duplicate(master));
    const onEnd = () => {
      this.#terminal = -1;
      this.#stdin?.close();
    };
    this.#stdout = new OutputPump(this.#parts, master, onEnd, { sent: this.#sentOutput(), gathers: false });
  }

  #outputPump(fd: number): OutputPump {
    return new OutputPump(this.#parts, fd, undefined, { sent: this.#sentOutput() });
  }

  #sentOutput(): SentOutput | undefined {
    return this.#keepsOutput ? new SentOutput() : undefined;
  }

  /** Errors: those of `SentOutput.after`. */
  checkFrom({ stdout, stderr }: OutputOffsets): void {
    this.#stdout?.checkFrom(stdout);
    this.#stderr?.checkFrom(stderr);
  }

  /** Joins the streams. Output without a stream is dropped. Errors: those of `checkFrom`. */
  attach(streams: ProcessStreams, from?: OutputOffsets): void {
    const { stdin, stdout, stderr } = streams;
    if (stdin !== undefined) {
      if (this.#stdin === undefined) stdin.reset();
      else {
        this.#stdin.attach(stdin);
        stdin.use(inputUser(this.#stdin));
      }
    }
    attachOutput(this.#stdout, stdout, from?.stdout);
    attachOutput(this.#stderr, stderr, from?.stderr);
  }

  resize(columns: number, rows: number): void {
    if (this.#terminal >= 0) this.#parts.setWindowSize(this.#terminal, columns, rows);
  }

  /** Called when the process has ended: closes its input. Its output may still wait in the pipes. */
  processGone(): void {
    if (this.#terminal < 0) this.#stdin?.close();
  }

  close(): void {
    this.#stdin?.close();
    this.#stdout?.close();
    this.#stderr?.close();
  }
}

function attachOutput(pump: OutputPump | undefined, stream: AgentStream | undefined, from: number | undefined): void {
  if (stream === undefined) {
    pump?.attach(undefined);
    return;
  }
  if (pump === undefined) {
    stream.end();
    return;
  }
  stream.use(outputUser(pump, stream));
  pump.attach(stream, from);
}
