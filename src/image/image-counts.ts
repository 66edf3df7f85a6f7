import { errorKinds, kindOf } from '#base/errors.ts';
import { Histogram, type HistogramReading, secondsBounds, Tally } from '#base/histogram.ts';

/** What has happened to the images of this process so far. */
export interface ImageCounts {
  /** Pulls that have ended, by `ok` or the kind of their error. */
  readonly pulls: readonly (readonly [outcome: string, count: number])[];
  readonly pulling: number;
  /** When the pull in progress that began first began, in `ms` since 1970. */
  readonly oldestPullMs: number | undefined;
  /** Seconds of the pulls that have ended. */
  readonly pullSeconds: HistogramReading;
  /** Root file systems made, of pulled, loaded and built images. */
  readonly imports: number;
}

export class CountedImages implements ImageCounts {
  readonly #pulls = new Tally(['ok', ...errorKinds]);
  readonly #seconds = new Histogram(secondsBounds);
  /** When each pull in progress began, oldest first. */
  readonly #begun = new Map<object, number>();
  imports = 0;

  /** Counts one pull until it ends. */
  async pull<T>(work: () => Promise<T>): Promise<T> {
    const beganMs = Date.now();
    const beganAt = performance.now();
    const key = {};
    this.#begun.set(key, beganMs);
    try {
      const result = await work();
      this.#pulls.add('ok');
      return result;
    } catch (error) {
      this.#pulls.add(kindOf(error));
      throw error;
    } finally {
      this.#begun.delete(key);
      this.#seconds.observe((performance.now() - beganAt) / 1000);
    }
  }

  get pulls(): ImageCounts['pulls'] {
    return this.#pulls.entries;
  }

  get pulling(): number {
    return this.#begun.size;
  }

  get oldestPullMs(): number | undefined {
    const [oldest] = this.#begun.values();
    return oldest;
  }

  get pullSeconds(): HistogramReading {
    return this.#seconds.reading;
  }
}
