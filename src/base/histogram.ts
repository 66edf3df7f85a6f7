/** Observations of a histogram so far. */
export interface HistogramReading {
  /** Upper bounds, in ascending order, with the number of observations that are not above each. */
  readonly buckets: readonly { readonly upTo: number; readonly count: number }[];
  readonly count: number;
  readonly sum: number;
}

/** Counts observations by size, in a fixed number of buckets. */
export class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #count = 0;
  #sum = 0;

  /** `bounds`: in ascending order. */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  observe(value: number): void {
    this.#count += 1;
    this.#sum += value;
    const at = this.#bounds.findIndex((bound) => value <= bound);
    if (at >= 0) this.#counts[at] = (this.#counts[at] ?? 0) + 1;
  }

  get reading(): HistogramReading {
    let below = 0;
    const buckets = this.#bounds.map((upTo, at) => {
      below += this.#counts[at] ?? 0;
      return { upTo, count: below };
    });
    return { buckets, count: this.#count, sum: this.#sum };
  }
}

/** Sums readings with the same bounds; at least one. */
export function sumOf([first, ...others]: readonly HistogramReading[]): HistogramReading {
  return others.reduce(
    (sum, each) => ({
      buckets: sum.buckets.map(({ upTo, count }, at) => ({ upTo, count: count + (each.buckets[at]?.count ?? 0) })),
      count: sum.count + each.count,
      sum: sum.sum + each.sum,
    }),
    first ?? { buckets: [], count: 0, sum: 0 },
  );
}

/** Upper bounds for durations from milliseconds to minutes, in seconds. */
export const secondsBounds: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

/** Counts events by a word of a small, fixed set. */
export class Tally {
  readonly #counts: Map<string, number>;

  /** `words`: the set. Each word counts 0 before its first event, because a rate needs a beginning. */
  constructor(words: readonly string[]) {
    this.#counts = new Map(words.map((word) => [word, 0]));
  }

  add(word: string): void {
    this.#counts.set(word, (this.#counts.get(word) ?? 0) + 1);
  }

  get entries(): readonly (readonly [word: string, count: number])[] {
    return [...this.#counts];
  }
}
