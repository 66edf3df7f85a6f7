import { systemClock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import { pathsOf } from './image-record.ts';
import type { Image } from '../images.ts';
import { compareWhole, lookAt } from './rootfs-file.ts';

/**
 * Depth of a check. `look`: the first block, and the rest only if the file has been written to since. `read`: all,
 * while a caller waits. `idle`: all, at idle priority.
 */
export type Depth = 'look' | 'read' | 'idle';

export interface ImageHealthParts {
  readonly directory: string;
  /** Findings are recorded in these. */
  readonly images: Map<string, Image>;
  readonly write: () => Promise<void>;
  readonly log: Log;
}

/** Checks whether the files of images are unchanged, and records the result. */
export class ImageHealth {
  readonly #parts: ImageHealthParts;
  readonly #reading = new Map<string, Promise<unknown>>();

  constructor(parts: ImageHealthParts) {
    this.#parts = parts;
  }

  /** Returns the image with the result; undefined when there is none. Errors: `cancelled`, `timeout`. */
  async check(id: string, depth: Depth, signal: AbortSignal): Promise<Image | undefined> {
    if (depth === 'look' && (await this.#looksIntact(id))) return this.#parts.images.get(id);
    // Reads one at a time: a second caller uses the first one's result.
    const mine = (this.#reading.get(id) ?? Promise.resolve())
      .catch(() => undefined)
      .then(async () => {
        if (depth !== 'look' || !(await this.#looksIntact(id))) await this.#read(id, depth, signal);
      });
    this.#reading.set(id, mine);
    try {
      await mine;
    } finally {
      if (this.#reading.get(id) === mine) this.#reading.delete(id);
    }
    return this.#parts.images.get(id);
  }

  async #looksIntact(id: string): Promise<boolean> {
    const image = this.#parts.images.get(id);
    if (image === undefined) return true;
    const look = await lookAt(pathsOf(this.#parts.directory, image), image);
    return look.kind === 'intact' && image.damaged === undefined;
  }

  async #read(id: string, depth: Depth, signal: AbortSignal): Promise<void> {
    const { directory, images, log } = this.#parts;
    const image = images.get(id);
    if (image === undefined) return;
    const found = await compareWhole(pathsOf(directory, image), image, systemClock.now(), depth !== 'idle', signal);
    const { damaged: known, ...current } = images.get(id) ?? image;
    if (!images.has(id) || current.rootfs !== image.rootfs) return; // it has been removed or made again since
    if ('rootfs' in found) {
      const layers = current.layers === undefined ? {} : { layers: found.layers };
      images.set(id, { ...current, rootfs: found.rootfs, ...layers });
      if (known !== undefined) log.info('image no longer damaged', { image: id });
    } else {
      if (known === found.reason) return;
      images.set(id, { ...current, damaged: found.reason });
      log.warn('image damaged', { image: id, why: found.reason });
    }
    await this.#parts.write().catch((error: unknown) => log.error("images' index cannot be written", error));
  }
}
