import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export interface GrowthOptions {
  /** `exceeded` fires when there are more `bytes` than this; default: no limit. */
  readonly maxBytes?: number;
  /** Called with the number of bytes each time it has grown. */
  readonly onBytes?: (bytes: number) => void;
  /** `stalled` fires after this time without growth, in `ms`; default: never. */
  readonly stallMs?: number;
}

/** Reports progress every two seconds. */
const lookMs = 2000;
/** Unit of `blocks` in stat(2). */
const blockBytes = 512;

/** Watches a directory that another program fills, until disposed. */
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

  /** The number of bytes at the last look. */
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

/** Bytes of all files below. Files that disappear during the count are left out. */
async function bytesIn(directory: string): Promise<number> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true }).catch(() => []);
  const sizes = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map((entry) =>
        stat(join(entry.parentPath, entry.name)).then(
          ({ size, blocks }) => Math.min(size, blocks * blockBytes), // a sparse file has more bytes than space
          () => 0,
        ),
      ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
