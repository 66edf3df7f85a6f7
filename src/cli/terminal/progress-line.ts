import { type Terminal, write } from './terminal.ts';

const clearLine = '\r\u001b[K';
/** Time between two lines where there is no terminal, in `ms`. */
const plainMs = 30_000;

/** What a command waits for: on a terminal one line that changes and disappears, otherwise a plain line from time to time. */
export class ProgressLine {
  readonly #stderr: Terminal['stderr'];
  #isShown = false;
  #saidAtMs = -Infinity;

  constructor({ stderr }: Pick<Terminal, 'stderr'>) {
    this.#stderr = stderr;
  }

  async show(text: string): Promise<void> {
    if (this.#stderr.isTTY) {
      this.#isShown = true;
      return await write(this.#stderr, `${clearLine}${`podvm: ${text}`.slice(0, (this.#stderr.columns || 80) - 1)}`);
    }
    if (performance.now() - this.#saidAtMs < plainMs) return;
    this.#saidAtMs = performance.now();
    await write(this.#stderr, `podvm: ${text}\n`);
  }

  /** Removes the line from the terminal, before other output. */
  async clear(): Promise<void> {
    if (!this.#isShown) return;
    this.#isShown = false;
    await write(this.#stderr, clearLine);
  }
}
