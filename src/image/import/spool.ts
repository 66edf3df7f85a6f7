import type { FileHandle } from 'node:fs/promises';

/** Sizes at which what waits is written: few calls, and few chunks of a stream that stay in memory. */
const maxBytes = 1024 ** 2;
const maxParts = 64;

/** Writes parts to a file behind one another, many in one call. */
export class Spool {
  readonly #file: FileHandle;
  #parts: Buffer[] = [];
  #waiting = 0;
  /** For parts that are copied. */
  #copies = Buffer.alloc(0);
  /** The position behind the last part. */
  end: number;

  constructor(file: FileHandle, start: number) {
    this.#file = file;
    this.end = start;
  }

  /** Adds a part, which must not change any more. */
  async add(part: Buffer): Promise<void> {
    if (part.length === 0) return;
    this.#parts.push(part);
    this.#waiting += part.length;
    this.end += part.length;
    if (this.#waiting >= maxBytes || this.#parts.length >= maxParts) await this.flush();
  }

  /** Adds a copy of a small part, so that the chunk that it is a part of need not stay in memory. */
  async addCopy(part: Buffer): Promise<void> {
    if (part.length > this.#copies.length) this.#copies = Buffer.alloc(Math.max(maxBytes, part.length));
    const copy = this.#copies.subarray(0, part.length);
    this.#copies = this.#copies.subarray(part.length);
    part.copy(copy);
    await this.add(copy);
  }

  async flush(): Promise<void> {
    const parts = this.#parts;
    const at = this.end - this.#waiting;
    this.#parts = [];
    this.#waiting = 0;
    if (parts.length === 0) return;
    const { bytesWritten } = await this.#file.writev(parts, at);
    await writeWhole(this.#file, behind(parts, bytesWritten), at + bytesWritten);
  }
}

/** Writes all bytes at a position. A full disk takes a part of them first, and reports an error for the rest. */
export async function writeWhole(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, at + done);
    done += bytesWritten;
  }
}

function behind(parts: readonly Buffer[], bytes: number): Buffer {
  const all = parts.reduce((sum, part) => sum + part.length, 0);
  return bytes === all ? Buffer.alloc(0) : Buffer.concat(parts).subarray(bytes);
}
