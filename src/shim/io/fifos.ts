import { constants } from 'node:fs';
import { close, fstat, open } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { OutputChunk } from '#sandbox/sandbox.ts';

/** Where containerd reads a process's output and writes its input: paths of FIFOs; empty: nowhere. */
export interface IoPaths {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

const [openFile, closeFile, statFile] = [promisify(open), promisify(close), promisify(fstat)];

/** The runtime's ends of the FIFOs of one process. */
export class Fifos {
  readonly #outputs: ReadonlyMap<OutputChunk['stream'], Socket>;
  readonly #input: Input | undefined;

  constructor(outputs: ReadonlyMap<OutputChunk['stream'], Socket>, input: Input | undefined) {
    this.#outputs = outputs;
    this.#input = input;
  }

  /** Errors: `invalid` for a path that is no FIFO, `unsupported` for a log driver. */
  static async open({ stdin, stdout, stderr, terminal }: IoPaths): Promise<Fifos> {
    const outputs = new Map<OutputChunk['stream'], Socket>();
    try {
      if (stdout !== '') outputs.set('stdout', await openOutput(stdout));
      if (stderr !== '' && !terminal) outputs.set('stderr', await openOutput(stderr));
      return new Fifos(outputs, stdin === '' ? undefined : await Input.open(stdin));
    } catch (error) {
      for (const socket of outputs.values()) socket.destroy();
      throw error;
    }
  }

  /** Resolves when the kernel has the bytes: a client that does not read delays the process. */
  async write({ stream, bytes }: OutputChunk): Promise<void> {
    const socket = this.#outputs.get(stream);
    if (socket === undefined || socket.destroyed) return;
    await new Promise<void>((resolve) => {
      socket.write(bytes, () => resolve()); // errors come with its end
    });
  }

  /** Passes input on, until its end. */
  feed(to: Writable): void {
    this.#input?.feed(to);
  }

  /** The client has written everything; what is on the way still arrives. */
  endInput(): void {
    this.#input?.release();
  }

  /** Ends the output, after what was written: clients read its end only when all writers have closed. */
  close(): void {
    for (const socket of this.#outputs.values()) socket.destroySoon();
    this.#input?.close();
  }

  /** Frees all at once, also when a client does not read. */
  destroy(): void {
    for (const socket of this.#outputs.values()) socket.destroy();
    this.#input?.close();
  }
}

/** Both ends are opened, so that a client that leaves and comes back is no end of the stream. */
async function openOutput(path: string): Promise<Socket> {
  const fd = await openFifo(path, constants.O_RDWR);
  const socket = new Socket({ fd, readable: false, writable: true });
  socket.on('error', () => undefined);
  return socket;
}

class Input {
  readonly #socket: Socket;
  /** Keeps the stream open between clients; undefined once it was released. */
  #writer: number | undefined;

  constructor(socket: Socket, writer: number) {
    this.#socket = socket;
    this.#writer = writer;
  }

  static async open(path: string): Promise<Input> {
    const reader = await openFifo(path, constants.O_RDONLY);
    let writer: number;
    try {
      writer = await openFifo(path, constants.O_WRONLY);
    } catch (error) {
      await closeFile(reader);
      throw error;
    }
    const socket = new Socket({ fd: reader, readable: true, writable: false });
    socket.on('error', () => undefined);
    return new Input(socket, writer);
  }

  feed(to: Writable): void {
    to.on('error', () => this.#socket.destroy()); // the process no longer reads
    this.#socket.pipe(to);
  }

  release(): void {
    if (this.#writer !== undefined) close(this.#writer, () => undefined);
    this.#writer = undefined;
  }

  close(): void {
    this.release();
    this.#socket.destroy();
  }
}

async function openFifo(path: string, flags: number): Promise<number> {
  if (!path.startsWith('/')) {
    throw new PodvmError('unsupported', `Cannot use ${printable(path, 100)} as an input or output: it is no path`, {
      fix: 'Let containerd write the log: leave the log driver out.',
    });
  }
  let fd: number | undefined;
  try {
    fd = await openFile(path, flags | constants.O_NONBLOCK);
    if ((await statFile(fd)).isFIFO()) return fd;
  } catch (cause) {
    if (fd !== undefined) await closeFile(fd);
    throw new PodvmError('invalid', `Cannot open the FIFO ${printable(path)}`, { cause });
  }
  await closeFile(fd);
  throw new PodvmError('invalid', `Cannot use ${printable(path)} as an input or output: it is no FIFO`);
}
