import { type Terminal, write } from '../terminal/terminal.ts';

const everyMs = 1000;
const clearLine = '\r\u001b[K';

/** Shows on a terminal, once a second, how much has been copied. */
export class CopyProgress implements AsyncDisposable {
  readonly #stderr: Terminal['stderr'];
  #bytes = 0;
  #saidAtMs = -Infinity;
  #hasSaid = false;

  constructor({ stderr }: Pick<Terminal, 'stderr'>) {
    this.#stderr = stderr;
  }

  async add(bytes: number): Promise<void> {
    this.#bytes += bytes;
    const now = performance.now();
    if (!this.#stderr.isTTY || now - this.#saidAtMs < everyMs) return;
    this.#saidAtMs = now;
    this.#hasSaid = true;
    await write(this.#stderr, `${clearLine}podvm: ${Math.round(this.#bytes / 1024 ** 2)} MiB copied`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasSaid) await write(this.#stderr, clearLine);
  }
}
