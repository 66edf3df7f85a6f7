/** Machines to keep waiting: a fixed number, or as many as recent starts have shown to be useful. */
export type PoolSize = number | 'auto';

/** Time for which a start counts, in `ms`. */
const rememberedMs = 10 * 60_000;
/** Starts within this time of each other could not have waited for new spares, in `ms`. */
const burstMs = 15_000;
const maxRemembered = 256;

/** Counts recent requests for machines, and returns how many should wait. Times are in `ms` of a monotonic clock. */
export class PoolDemand {
  readonly #size: PoolSize;
  readonly #most: number;
  #orderedMs: number[] = [];

  /** `most`: limit of an automatic size. */
  constructor(size: PoolSize, most: number) {
    this.#size = size;
    this.#most = most;
  }

  ordered(nowMs: number): void {
    this.#orderedMs = [...this.#orderedMs.slice(1 - maxRemembered), nowMs];
  }

  /**
   * The configured number; or as many as the largest burst of the last ten minutes took, at least one, so that the next pod
   * does not wait either.
   */
  wanted(nowMs: number): number {
    if (this.#size !== 'auto') return this.#size;
    this.#orderedMs = this.#orderedMs.filter((at) => nowMs - at < rememberedMs);
    const bursts = this.#orderedMs.map((first, from) => {
      const next = this.#orderedMs.findIndex((at, index) => index > from && at - first >= burstMs);
      return (next === -1 ? this.#orderedMs.length : next) - from;
    });
    return Math.min(this.#most, Math.max(1, ...bursts));
  }
}
