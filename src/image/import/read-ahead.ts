/** Reads a stream before its bytes are asked for, until so many of them wait. To be read once, and disposed. */
export class ReadAhead implements AsyncIterable<Buffer>, Disposable {
  readonly #maxBytes: number;
  readonly #waiting: Buffer[] = [];
  #bytes = 0;
  #hasEnded = false;
  #isStopped = false;
  #failure: { readonly error: unknown } | undefined;
  /** Resumes the side that waits for the other one. */
  #wake: () => void = () => undefined;

  constructor(source: AsyncIterable<Buffer>, maxBytes: number) {
    this.#maxBytes = maxBytes;
    this.#fill(source).catch(() => undefined); // its errors are told to the reader
  }

  async #fill(source: AsyncIterable<Buffer>): Promise<void> {
    try {
      for await (const chunk of source) {
        this.#waiting.push(chunk);
        this.#bytes += chunk.length;
        this.#wake();
        while (this.#bytes >= this.#maxBytes && !this.#isStopped) await this.#woken();
        if (this.#isStopped) return;
      }
    } catch (error) {
      this.#failure = { error };
    }
    this.#hasEnded = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    for (;;) {
      const chunk = this.#waiting.shift();
      if (chunk !== undefined) {
        this.#bytes -= chunk.length;
        this.#wake();
        yield chunk;
      } else if (this.#failure !== undefined) throw this.#failure.error;
      else if (this.#hasEnded || this.#isStopped) return;
      else await this.#woken();
    }
  }

  /** Only one side waits at a time: the reader when nothing waits, the source when much does. */
  async #woken(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Lets the source go as soon as it yields or ends; a layer may never arrive. */
  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#wake();
  }
}
