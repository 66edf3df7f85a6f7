import { descriptors } from '#host/process/descriptors.ts';

/** Time at which a resource is released: when its sandbox has started, has ended, or is removed. */
export type Until = (typeof lifetimes)[number];

const lifetimes = ['started', 'ended', 'removed'] as const;

interface Holding {
  readonly until: Until;
  readonly undo: () => PromiseLike<void> | void;
}

/**
 * Resources of a sandbox. Those of one lifetime are released in the reverse order of acquisition, each once; one whose
 * undo failed stays held, and the next call tries again. Disposing releases all.
 */
export class Holdings implements AsyncDisposable {
  #held: Holding[] = [];
  #removing: Promise<void> | undefined;

  hold(until: Until, undo: Holding['undo']): void {
    this.#held.push({ until, undo });
  }

  /** Takes over the resources of the other, as if acquired now. */
  takeFrom(other: Holdings): this {
    this.#held.push(...other.#held.splice(0));
    return this;
  }

  /**
   * Releases resources of this lifetime and of shorter ones. Errors: those of undoing, the first as
   * `SuppressedError.suppressed` when there are several; resources of a longer lifetime then stay held.
   */
  async end(until: Until): Promise<void> {
    for (const lifetime of lifetimes.slice(0, lifetimes.indexOf(until) + 1)) await this.#undo(lifetime);
  }

  /** Releases everything. Simultaneous calls share one attempt, and a later call repeats what failed. */
  async remove(): Promise<void> {
    this.#removing ??= this.end('removed').finally(() => (this.#removing = undefined));
    await this.#removing;
  }

  /** Leaves what a sandbox has until its end to another process, and releases the rest. Errors: as `end`. */
  async leave(): Promise<void> {
    this.#held = this.#held.filter(({ until }) => until !== 'ended');
    await this.end('removed');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using undoing = new AsyncDisposableStack(); // the shortest lifetime first, the others even if it fails
    for (const lifetime of lifetimes.toReversed()) undoing.defer(() => this.#undo(lifetime));
  }

  async #undo(lifetime: Until): Promise<void> {
    await using undoing = new AsyncDisposableStack();
    for (const holding of this.#held.filter(({ until }) => until === lifetime)) {
      undoing.defer(async () => {
        descriptors.makeRoom();
        await holding.undo();
        this.#held = this.#held.filter((other) => other !== holding);
      });
    }
  }
}
