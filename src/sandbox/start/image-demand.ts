/** Time for which a start counts, in `ms`. */
const rememberedMs = 10 * 60_000;
const maxRemembered = 256;

/** Counts the images that pods needed first, and returns the one that a waiting machine should have. */
export class ImageDemand {
  readonly #nowMs: () => number;
  #started: { readonly id: string; readonly atMs: number }[] = [];

  /** `nowMs`: a monotonic clock. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  started(id: string): void {
    this.#started = [...this.#started.slice(1 - maxRemembered), { id, atMs: this.#nowMs() }];
  }

  /** Id of the image that most pods of the last ten minutes began with; of several, the one that was started last. */
  get favourite(): string | undefined {
    const sinceMs = this.#nowMs() - rememberedMs;
    this.#started = this.#started.filter(({ atMs }) => atMs > sinceMs);
    const counts = new Map<string, number>();
    let found: string | undefined;
    for (const { id } of this.#started) {
      const count = (counts.get(id) ?? 0) + 1;
      counts.set(id, count);
      if (count >= (counts.get(found ?? '') ?? 0)) found = id;
    }
    return found;
  }
}
