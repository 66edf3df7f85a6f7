import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface GrowthOptions {
  /** Told the bytes that are there, each time when there are more. */
  readonly onBytes: (bytes: number) => void;
  /** Without growth for so long, `stalled` fires; `ms`. */
  readonly stallMs: number;
}

/** Looks often enough to be told of progress every two seconds. */
const lookMs = 2000;

/** A directory that another program fills is watched until this is disposed of. */
export class Growth implements Disposable {
  readonly #stall = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #options: GrowthOptions;
  readonly #directory: string;
  #bytes = 0;
  #grewAtMs = performance.now();

  constructor(directory: string, options: GrowthOptions) {
    this.#directory = directory;
    this.#options = options;
    this.#timer = setInterval(() => void this.#look(), Math.min(lookMs, options.stallMs / 4));
  }

  get stalled(): AbortSignal {
    return this.#stall.signal;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const bytes = await bytesIn(this.#directory);
    if (bytes > this.#bytes) {
      this.#bytes = bytes;
      this.#grewAtMs = performance.now();
      this.#options.onBytes(bytes);
    } else if (performance.now() - this.#grewAtMs > this.#options.stallMs) this.#stall.abort();
  }
}

/** Of all files below; those that go while we look count nothing. */
async function bytesIn(directory: string): Promise<number> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true }).catch(() => []);
  const sizes = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map((entry) =>
        stat(join(entry.parentPath, entry.name)).then(
          ({ size }) => size,
          () => 0,
        ),
      ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
