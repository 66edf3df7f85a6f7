import { errorKinds, kindOf } from '#base/errors.ts';
import { Histogram, type HistogramReading, secondsBounds, Tally } from '#base/histogram.ts';
import type { Phase } from '#base/phases.ts';

/** Counts and times of the sandboxes of this process so far. */
export interface SandboxCounts {
  /** Seconds of each step of the starts that succeeded, and of the `total`. */
  readonly phases: readonly (readonly [phase: string, reading: HistogramReading])[];
  /** Median of the latest times of each step, in `ms`, and the number of these starts. */
  readonly medians: ReadonlyMap<string, { readonly ms: number; readonly starts: number }>;
  /** Starts that failed, by the kind of their error. */
  readonly failedStarts: readonly (readonly [kind: string, count: number])[];
  readonly poolHits: number;
  /** Starts for which the pool had no waiting machine. */
  readonly poolMisses: number;
  /** Sandboxes of an earlier process: `taken` over, or `ended`. */
  readonly adoptions: readonly (readonly [outcome: string, count: number])[];
  /** Processes that guests' kernels have killed for lack of memory. */
  readonly outOfMemoryKills: number;
  /** Sandboxes that failed after their start. */
  readonly failures: number;
}

/** Starts whose times are kept for the median. */
const maxLatest = 100;

/** Counts events of sandboxes. Phases are those of a fixed set, since a guest adds others to its timeline. */
export class NodeCounts implements SandboxCounts {
  readonly #phases = new Map<string, Histogram>();
  /** The latest times of each step, in `ms`. */
  readonly #latest = new Map<string, number[]>();
  readonly #known: ReadonlySet<string>;
  readonly #failedStarts = new Tally(errorKinds);
  readonly #adoptions = new Tally(['taken', 'ended', 'left']);
  poolHits = 0;
  poolMisses = 0;
  outOfMemoryKills = 0;
  failures = 0;

  constructor(phases: readonly string[]) {
    this.#known = new Set([...phases, 'total']);
  }

  started(timeline: readonly Phase[]): void {
    for (const { name, ms } of timeline) {
      if (!this.#known.has(name)) continue;
      const histogram = this.#phases.get(name) ?? new Histogram(secondsBounds);
      this.#phases.set(name, histogram);
      histogram.observe(ms / 1000);
      const latest = this.#latest.get(name) ?? [];
      this.#latest.set(name, latest);
      latest.push(ms);
      if (latest.length > maxLatest) latest.shift();
    }
  }

  startFailed(error: unknown): void {
    this.#failedStarts.add(kindOf(error));
  }

  adopted(outcome: 'taken' | 'ended' | 'left'): void {
    this.#adoptions.add(outcome);
  }

  get phases(): SandboxCounts['phases'] {
    return [...this.#phases].map(([name, histogram]) => [name, histogram.reading] as const);
  }

  get medians(): SandboxCounts['medians'] {
    const medianOf = (times: readonly number[]) =>
      [...times].sort((a, b) => a - b)[Math.floor((times.length - 1) / 2)] ?? 0;
    return new Map([...this.#latest].map(([name, times]) => [name, { ms: medianOf(times), starts: times.length }]));
  }

  get failedStarts(): SandboxCounts['failedStarts'] {
    return this.#failedStarts.entries;
  }

  get adoptions(): SandboxCounts['adoptions'] {
    return this.#adoptions.entries;
  }
}
