import { close, constants } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import type { OutputChunk } from '#sandbox/sandbox.ts';
import { openBothEnds, openFifo } from './open-fifo.ts';

/** Paths of the FIFOs from which containerd reads a process's output and to which it writes its input; empty: none. */
export interface IoPaths {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

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
      if (stdout !== '') outputs.set('stdout', await openBothEnds(stdout));
      if (stderr !== '' && !terminal) outputs.set('stderr', await openBothEnds(stderr));
      return new Fifos(outputs, stdin === '' ? undefined : await Input.open(stdin, await holdOpen(stdin)));
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

  /** Ends the output after its last bytes: clients read its end only when all writers have closed. */
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

/** Keeps a FIFO open between the programs that write to it. Returns a function that ends this. */
async function holdOpen(path: string): Promise<() => void> {
  const fd = await openFifo(path, constants.O_RDWR);
  return () => close(fd, () => undefined);
}

/** The end of a FIFO from which a process gets its input. */
export class Input {
  readonly #socket: Socket;
  /** Function that ends keeping the stream open between clients; undefined after it was called. */
  #letGo: (() => void) | undefined;

  private constructor(socket: Socket, letGo: () => void) {
    this.#socket = socket;
    this.#letGo = letGo;
  }

  /** `letGo` is called once, also after an error. Errors: as `openFifo`. */
  static async open(path: string, letGo: () => void): Promise<Input> {
    try {
      const fd = await openFifo(path, constants.O_RDONLY);
      const socket = new Socket({ fd, readable: true, writable: false });
      socket.on('error', () => undefined);
      return new Input(socket, letGo);
    } catch (error) {
      letGo();
      throw error;
    }
  }

  /** Passes input on, until its end. */
  feed(to: Writable): void {
    to.on('error', () => this.#socket.destroy()); // the process no longer reads
    this.#socket.pipe(to);
  }

  /** The client has written everything; what is on the way still arrives. */
  release(): void {
    this.#letGo?.();
    this.#letGo = undefined;
  }

  close(): void {
    this.release();
    this.#socket.destroy();
  }
}
