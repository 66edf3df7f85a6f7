import { errorKinds, kindOf } from '#base/errors.ts';
import { Histogram, type HistogramReading, secondsBounds, Tally } from '#base/histogram.ts';

/** Counters of the pulls and imports of this process so far. */
export interface ImageCounts {
  /** Number of pulls that have ended, by `ok` or the kind of their error. */
  readonly pulls: readonly (readonly [outcome: string, count: number])[];
  /** Pulls in progress, oldest first. */
  readonly pulling: readonly PullInProgress[];
  /** Durations of the pulls that have ended, in seconds. */
  readonly pullSeconds: HistogramReading;
  /** Number of root file systems made from pulled, loaded and built images. */
  readonly imports: number;
}

export interface PullInProgress {
  /** The image's full name. */
  readonly reference: string;
  /** Its start, in `ms` since 1970. */
  readonly sinceMs: number;
  /** What it does now, such as `pulling docker.io/library/nginx:latest: 12.5 of 70.1 MB`. */
  readonly doing?: string;
}

export class CountedImages implements ImageCounts {
  readonly #pulls = new Tally(['ok', ...errorKinds]);
  readonly #seconds = new Histogram(secondsBounds);
  readonly #pulling = new Set<Readonly<PullInProgress>>();
  imports = 0;

  /** Counts one pull until it ends. `work` gets a function that notes what it does. */
  async pull<T>(reference: string, work: (note: (doing: string) => void) => Promise<T>): Promise<T> {
    const begun: PullInProgress & { doing?: string } = { reference, sinceMs: Date.now() };
    const beganAt = performance.now();
    this.#pulling.add(begun);
    try {
      const result = await work((doing) => (begun.doing = doing));
      this.#pulls.add('ok');
      return result;
    } catch (error) {
      this.#pulls.add(kindOf(error));
      throw error;
    } finally {
      this.#pulling.delete(begun);
      this.#seconds.observe((performance.now() - beganAt) / 1000);
    }
  }

  get pulls(): ImageCounts['pulls'] {
    return this.#pulls.entries;
  }

  get pulling(): ImageCounts['pulling'] {
    return [...this.#pulling];
  }

  get pullSeconds(): HistogramReading {
    return this.#seconds.reading;
  }
}
