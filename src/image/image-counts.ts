import { errorKinds, kindOf } from '#base/errors.ts';
import { Histogram, type HistogramReading, secondsBounds, Tally } from '#base/histogram.ts';

/** Counters of the pulls and imports of this process so far. */
export interface ImageCounts {
  /** Number of pulls that have ended, by `ok` or the kind of their error. */
  readonly pulls: readonly (readonly [outcome: string, count: number])[];
  readonly pulling: number;
  /** Start of the oldest pull in progress, in `ms` since 1970; undefined without one. */
  readonly oldestPullMs: number | undefined;
  /** Durations of the pulls that have ended, in seconds. */
  readonly pullSeconds: HistogramReading;
  /** Number of root file systems made from pulled, loaded and built images. */
  readonly imports: number;
}

export class CountedImages implements ImageCounts {
  readonly #pulls = new Tally(['ok', ...errorKinds]);
  readonly #seconds = new Histogram(secondsBounds);
  /** Start of each pull in progress, oldest first. */
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
