/** Processor time that a machine has used since it began, and its CPU weight in shares. */
export interface ProcessorUse {
  readonly usedMs: number;
  readonly cpuShares: number;
}

/**
 * Factor by which the CPU weight of a machine that has rested is higher: so high that those without savings hardly delay
 * it. With 10, an exec beside three machines that flood everything took 1.5 to 1.75 times its quiet time, with 100 1.1 to 1.25.
 */
export const restedFactor = 100;
/** Maximum savings of processor time, in `ms`: twenty answers of an emulated guest. */
const maxSavedMs = 2000;

/**
 * Finds the machines that have recently used less of the processor than their shares entitle them to. Among machines
 * that all want more than there is, the kernel gives each its part, and no credit for time that it left to others
 * before: a guest that works now and then waits for as many turns as one that never stops. So a machine with savings
 * gets a higher weight until it has used them. In the long run no machine gets more than its part, and one that always
 * runs has no savings.
 *
 * The time that is divided is that which the machines used plus the idle time. Time of other programs is left out:
 * otherwise no machine could use its part beside them, and machines that flood would have savings, too.
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
