import type { Socket } from 'node:net';
import { isThere } from '#host/file/files.ts';
import { within } from '#host/wait.ts';
import { openBothEnds } from '../io/open-fifo.ts';

/** Bytes of a FIFO that is not read, above which the daemon waits. */
const maxUnreadBytes = 64 * 1024;
/** Time for the connection of a daemon that has ended to close, in `ms`. */
const lastBytesMs = 10_000;

/** The FIFOs that the keeper holds, by their paths. */
export class KeptFifos {
  readonly #fifos = new Map<string, KeptFifo>();

  /** Errors: those of opening it. */
  async open(path: string): Promise<KeptFifo> {
    const known = this.#fifos.get(path);
    if (known !== undefined) return known;
    await this.#sweep();
    const fifo = new KeptFifo(await openBothEnds(path));
    this.#fifos.set(path, fifo);
    return fifo;
  }

  async end(path: string): Promise<void> {
    await this.#fifos.get(path)?.end();
  }

  forget(path: string): void {
    this.#fifos.get(path)?.destroy();
    this.#fifos.delete(path);
  }

  /** Closes FIFOs that containerd has removed. */
  async #sweep(): Promise<void> {
    for (const path of this.#fifos.keys()) if (!(await isThere(path))) this.forget(path);
  }
}

/** One FIFO. Bytes of a daemon still reach it after that daemon has ended. */
export class KeptFifo {
  readonly #socket: Socket;
  #writtenBytes = 0;
  /** The connection that writes to it. */
  #writer: { readonly from: Socket; readonly closed: Promise<void> } | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('drain', () => this.#writer?.from.resume());
  }

  /** Takes all bytes of a connection from now on. Returns how many bytes came before. */
  async carry(from: Socket): Promise<number> {
    await this.#lastBytes();
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const writer = { from, closed };
    this.#writer = writer;
    const before = this.#writtenBytes;
    from.on('data', (bytes: Buffer) => {
      this.#writtenBytes += bytes.length;
      this.#socket.write(bytes);
      if (this.#socket.writableLength > maxUnreadBytes && this.#writer === writer) from.pause();
    });
    from.once('close', resolve);
    return before;
  }

  /** Takes the bytes of an earlier connection, which has ended or ends now. */
  async #lastBytes(): Promise<void> {
    const last = this.#writer;
    this.#writer = undefined;
    last?.from.resume();
    await within(last?.closed ?? Promise.resolve(), { ms: lastBytesMs });
    last?.from.destroy();
  }

  async end(): Promise<void> {
    await this.#lastBytes();
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}
