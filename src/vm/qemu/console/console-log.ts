import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

/** Limit of the file's size, so that a hostile guest cannot fill the disk. */
export const maxConsoleBytes = 1024 * 1024;
/**
 * Limit of the copying rate. A serial line is slower; a compromised VMM could be faster and keep our thread and the
 * disk busy.
 */
export const maxBytesPerMs = 2 * 1024;
/** Bytes of the older half that are kept when the file is full. */
const keptBytes = maxConsoleBytes / 2;

/** The host's end of a machine's serial console. Disposing closes it. */
export interface MachineConsole extends AsyncDisposable {
  /** Waits until all output that QEMU sent before it ended is kept. */
  finished(): Promise<void>;
  /** Returns the last of the bytes that are kept. */
  tail(bytes: number): Promise<Buffer>;
}

/**
 * Copies a machine's serial console into a file that keeps the last half MiB to one MiB. QEMU's own file chardev grows
 * without limit, and its `ringbuf` is lost with QEMU, including the last lines of a panic; so the bytes come over a
 * socket. QEMU drops them while the socket is not connected.
 */
export class ConsoleLog implements MachineConsole {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #source: Duplex;
  #bytes: number;
  readonly #done: Promise<void>;

  /** Appends to the output of an earlier process. */
  static async open(path: string, source: Duplex): Promise<ConsoleLog> {
    const flags = constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW;
    const file = await open(path, flags, 0o600);
    return new ConsoleLog(path, file, source, (await file.stat()).size);
  }

  private constructor(path: string, file: FileHandle, source: Duplex, bytes: number) {
    this.#path = path;
    this.#file = file;
    this.#source = source;
    this.#bytes = bytes;
    this.#done = this.#copy();
  }

  async tail(bytes: number): Promise<Buffer> {
    return await endOfFile(this.#path, bytes);
  }

  async finished(): Promise<void> {
    await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#source.destroy();
    await this.#done;
  }

  async #copy(): Promise<void> {
    try {
      for await (const chunk of this.#source) {
        const bytes = chunk as Buffer; // SAFE: no encoding was set
        await this.#append(bytes);
        const waitMs = Math.floor(bytes.length / maxBytesPerMs);
        if (waitMs > 0) await delay(waitMs);
      }
    } catch {
      // Disposed, QEMU gone, or disk full. The console is a debugging aid and never fails a machine.
    } finally {
      await this.#file.close().catch(() => undefined);
    }
  }

  async #append(chunk: Buffer): Promise<void> {
    const piece = chunk.length > keptBytes ? chunk.subarray(-keptBytes) : chunk;
    if (this.#bytes + piece.length > maxConsoleBytes) await this.#dropOldHalf();
    await this.#file.write(piece, 0, piece.length, this.#bytes);
    this.#bytes += piece.length;
  }

  async #dropOldHalf(): Promise<void> {
    const kept = Buffer.alloc(Math.min(keptBytes, this.#bytes));
    await this.#file.read(kept, 0, kept.length, this.#bytes - kept.length);
    await this.#file.truncate(0);
    await this.#file.write(kept, 0, kept.length, 0);
    this.#bytes = kept.length;
  }
}

/** The last bytes of a file; none if it is missing. */
export async function endOfFile(path: string, bytes: number): Promise<Buffer> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.min(bytes, size));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, size - buffer.length);
    return buffer.subarray(0, bytesRead);
  } catch {
    return Buffer.alloc(0);
  }
}
