/** Time for which a start counts, in `ms`. */
const rememberedMs = 10 * 60_000;
/** Starts that count: few, so that a new image soon does. */
const maxRemembered = 8;
/** Images that a waiting machine has: each takes memory and processor time, and the disks of all but one are emptied again. */
const maxFavourites = 3;

/** Remembers the images that pods began with, and returns those that a waiting machine should have. */
export class ImageDemand {
  readonly #nowMs: () => number;
  #started: { readonly id: string; readonly atMs: number }[] = [];

  /** `nowMs`: a monotonic clock. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Called when a machine has mounted the image as its first. */
  started(id: string): void {
    this.#started = [...this.#started.slice(1 - maxRemembered), { id, atMs: this.#nowMs() }];
  }

  /** Forgets an image that a waiting machine could not mount, until a pod begins with it again. */
  failed(id: string): void {
    this.#started = this.#started.filter((start) => start.id !== id);
  }

  /**
   * Ids of the images that most of the last eight pods began with, but for pods of more than ten minutes ago; of several, the
   * one that was started last comes first.
   */
  get favourites(): readonly string[] {
    const sinceMs = this.#nowMs() - rememberedMs;
    this.#started = this.#started.filter(({ atMs }) => atMs > sinceMs);
    const counts = new Map<string, number>();
    for (const { id } of this.#started.toReversed()) counts.set(id, (counts.get(id) ?? 0) + 1);
    // A map keeps the order of insertion, and the sort is stable: the last started come first.
    const ordered = [...counts].toSorted(([, one], [, other]) => other - one);
    return ordered.slice(0, maxFavourites).map(([id]) => id);
  }
}
