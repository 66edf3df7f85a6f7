/** What a machine has used of the processor since it began, and its part of the node's. */
export interface ProcessorUse {
  readonly usedMs: number;
  readonly cpuShares: number;
}

/** What a machine that has rested weighs more than one that has not. */
export const restedFactor = 10;
/** Maximum savings of processor time, in `ms`: twenty answers of an emulated guest. */
const maxSavedMs = 2000;

/**
 * Which machines have used less of the processor lately than what is theirs by their shares. Among those that all want
 * more than there is, the kernel gives each its part and no credit for what it has left to others before: a guest that
 * does something once in a while gets its answer done in as many turns as one that never stops has. So those that have
 * saved weigh more, until they have used what they saved. In the long run none gets more than its part by that, and one
 * that always runs has no savings.
 *
 * What is divided is what the machines used and what no one used. Other programs' part of the processor is not: else
 * beside them no machine could use what is its own, and those that flood would have savings, too.
 */
export class ProcessorSavings {
  readonly #machines = new Map<string, { usedMs: number; savedMs: number }>();
  #lastIdleMs: number | undefined;

  /**
   * Returns the machines of `uses` that have savings. A new machine has the maximum. `idleMs`: time that all cores of the
   * node together have idled since it booted.
   */
  rested(idleMs: number, uses: ReadonlyMap<string, ProcessorUse>): ReadonlySet<string> {
    const idledMs = Math.max(0, idleMs - (this.#lastIdleMs ?? idleMs));
    this.#lastIdleMs = idleMs;
    for (const id of this.#machines.keys()) if (!uses.has(id)) this.#machines.delete(id);
    const spent = new Map(
      [...uses].map(([id, { usedMs }]) => [id, Math.max(0, usedMs - (this.#machines.get(id)?.usedMs ?? usedMs))]),
    );
    const dividedMs = [...spent.values()].reduce((sum, ms) => sum + ms, idledMs);
    const allShares = [...uses.values()].reduce((sum, { cpuShares }) => sum + cpuShares, 0);
    const rested = new Set<string>();
    for (const [id, { usedMs, cpuShares }] of uses) {
      const before = this.#machines.get(id)?.savedMs ?? maxSavedMs;
      const savedMs = before + (dividedMs * cpuShares) / allShares - (spent.get(id) ?? 0);
      const kept = Math.min(maxSavedMs, Math.max(-maxSavedMs, savedMs));
      this.#machines.set(id, { usedMs, savedMs: kept });
      if (kept > 0) rested.add(id);
    }
    return rested;
  }
}
