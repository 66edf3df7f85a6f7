import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface GrowthOptions {
  /** With more than so many `bytes`, `exceeded` fires; default: no limit. */
  readonly maxBytes?: number;
  /** Told the bytes that are there, each time when there are more. */
  readonly onBytes?: (bytes: number) => void;
  /** Without growth for so long, `stalled` fires; default: never; `ms`. */
  readonly stallMs?: number;
}

/** Looks often enough to be told of progress every two seconds. */
const lookMs = 2000;
/** Of `blocks`, stat(2). */
const blockBytes = 512;

/** A directory that another program fills is watched until this is disposed of. */
export class Growth implements Disposable {
  readonly #exceeded = new AbortController();
  readonly #stall = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #options: GrowthOptions;
  readonly #directory: string;
  #bytes = 0;
  #grewAtMs = performance.now();

  constructor(directory: string, options: GrowthOptions) {
    this.#directory = directory;
    this.#options = options;
    this.#timer = setInterval(() => void this.#look(), Math.min(lookMs, (options.stallMs ?? Infinity) / 4));
  }

  get stalled(): AbortSignal {
    return this.#stall.signal;
  }

  get exceeded(): AbortSignal {
    return this.#exceeded.signal;
  }

  /** The last that was seen. */
  get bytes(): number {
    return this.#bytes;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const bytes = await bytesIn(this.#directory);
    if (bytes > this.#bytes) {
      this.#bytes = bytes;
      this.#grewAtMs = performance.now();
      if (bytes > (this.#options.maxBytes ?? Infinity)) this.#exceeded.abort();
      this.#options.onBytes?.(bytes);
    } else if (performance.now() - this.#grewAtMs > (this.#options.stallMs ?? Infinity)) this.#stall.abort();
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
          ({ size, blocks }) => Math.min(size, blocks * blockBytes), // a sparse file may look like much more
          () => 0,
        ),
      ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
