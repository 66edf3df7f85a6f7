import { PodvmError } from '#base/errors.ts';

export const blockBytes = 512;

/** Makes the error of one archive: the reader gives the reason, the caller names the archive. */
export type Fault = (reason: string, cause?: unknown) => PodvmError;

/** Splits a stream of chunks into blocks, exact counts and runs of bytes. */
export class TarBytes {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #fault: Fault;
  #held: Buffer = Buffer.alloc(0);
  #taken = 0;

  constructor(chunks: AsyncIterable<Buffer>, fault: Fault) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#fault = fault;
  }

  /** Bytes taken so far. */
  get taken(): number {
    return this.#taken;
  }

  /**
   * Returns the next block; undefined at the end of the stream. Errors: the archive's fault, when it ends inside a
   * block.
   */
  async block(): Promise<Buffer | undefined> {
    if (this.#held.length === 0 && !(await this.#more())) return undefined;
    return await this.exactly(blockBytes);
  }

  async exactly(count: number): Promise<Buffer> {
    if (this.#held.length < count) {
      const parts: Buffer[] = [];
      for await (const part of this.run(count)) parts.push(part);
      return Buffer.concat(parts);
    }
    return this.#take(count);
  }

  /** Yields this many bytes, in the pieces in which they arrive. */
  async *run(count: number): AsyncGenerator<Buffer> {
    for (let left = count; left > 0;) {
      if (this.#held.length === 0 && !(await this.#more())) throw this.#fault('it is truncated');
      const piece = this.#take(Math.min(left, this.#held.length));
      left -= piece.length;
      yield piece;
    }
  }

  async skip(count: number): Promise<void> {
    if (count <= this.#held.length) this.#take(count);
    else for await (const _ of this.run(count));
  }

  /** Reads to the end of the stream, so that a digest covers all of it. */
  async drain(): Promise<void> {
    while (await this.#more());
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  #take(count: number): Buffer {
    const taken = this.#held.subarray(0, count);
    this.#held = this.#held.subarray(count);
    this.#taken += count;
    return taken;
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const { value, done } = await this.#chunks.next();
      if (done === true) return false;
      this.#held = value;
      if (value.length > 0) return true;
    }
  }
}
