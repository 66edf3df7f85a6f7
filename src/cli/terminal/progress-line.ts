import { type Terminal, write } from './terminal.ts';

const clearLine = '\r\u001b[K';
/** Time between two lines where there is no terminal, in `ms`. */
const plainMs = 30_000;

/** Age from which on a line that does not change says how old it is, in seconds. */
const oldSeconds = 2;

/**
 * What a command waits for: on a terminal one line that changes and disappears, with its age if it stays the same, otherwise a
 * plain line from time to time.
 */
export class ProgressLine {
  readonly #stderr: Terminal['stderr'];
  #isShown = false;
  #saidAtMs = -Infinity;
  #text = '';
  #timer: NodeJS.Timeout | undefined;

  constructor({ stderr }: Pick<Terminal, 'stderr'>) {
    this.#stderr = stderr;
  }

  async show(text: string): Promise<void> {
    if (this.#stderr.isTTY) {
      if (this.#isShown && text === this.#text) return; // its age is shown
      this.#isShown = true;
      this.#text = text;
      this.#growOld(oldSeconds, oldSeconds);
      return await this.#draw('');
    }
    if (performance.now() - this.#saidAtMs < plainMs) return;
    this.#saidAtMs = performance.now();
    await write(this.#stderr, `podvm: ${text}\n`);
  }

  /** Removes the line from the terminal, before other output. */
  async clear(): Promise<void> {
    clearTimeout(this.#timer);
    if (!this.#isShown) return;
    this.#isShown = false;
    await write(this.#stderr, clearLine);
  }

  /** Shows that the line is `age` old, after as many seconds. */
  #growOld(age: number, seconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#growOld(age + 1, 1);
      void this.#draw(` (${age} s)`);
    }, seconds * 1000);
    this.#timer.unref();
  }

  async #draw(age: string): Promise<void> {
    const columns = (this.#stderr.columns || 80) - 1;
    await write(this.#stderr, `${clearLine}${`podvm: ${this.#text}`.slice(0, columns - age.length)}${age}`);
  }
}

/** Time after which a person wants to know what a command waits for, in `ms`. */
const patienceMs = 2000;

/** Waits for work; if that takes long, a terminal says meanwhile what is done. */
export async function tellIfLate<T>(work: Promise<T>, doing: string, terminal: Pick<Terminal, 'stderr'>): Promise<T> {
  if (!terminal.stderr.isTTY) return await work;
  const line = new ProgressLine(terminal);
  const timer = setTimeout(() => void line.show(doing), patienceMs);
  try {
    return await work;
  } finally {
    clearTimeout(timer);
    await line.clear();
  }
}
