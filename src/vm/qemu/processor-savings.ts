/** What a machine has used of the processor since it began, and its part of the node's. */
export interface ProcessorUse {
  readonly usedMs: number;
  readonly cpuShares: number;
}

/** What a machine that has rested weighs more: its answer beside three that flood takes 1.1 to 1.3 times its quiet time. */
export const restedFactor = 10;
/** Maximum savings of processor time, in `ms`: twenty answers of an emulated guest. */
const maxSavedMs = 2000;

/**
 * Which machines have used less of the processor lately than what is theirs by their shares. Among those that all want
 * more than there is, the kernel gives each its part and no credit for what it has left to others before: a guest that
 * does something once in a while gets its answer done in as many turns as one that never stops has. So those that have
 * saved weigh more, until they have used what they saved. In the long run none gets more than its part by that, and one
 * that always runs has no savings.
 */
export class ProcessorSavings {
  readonly #cores: number;
  readonly #machines = new Map<string, { usedMs: number; savedMs: number }>();
  #lastMs: number;

  constructor(cores: number, nowMs: number) {
    this.#cores = cores;
    this.#lastMs = nowMs;
  }

  /** Returns the machines of `uses` that have savings at `nowMs`. A new machine has the maximum. */
  rested(nowMs: number, uses: ReadonlyMap<string, ProcessorUse>): ReadonlySet<string> {
    const elapsedMs = Math.max(0, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    for (const id of this.#machines.keys()) if (!uses.has(id)) this.#machines.delete(id);
    const allShares = [...uses.values()].reduce((sum, { cpuShares }) => sum + cpuShares, 0);
    const rested = new Set<string>();
    for (const [id, { usedMs, cpuShares }] of uses) {
      const before = this.#machines.get(id) ?? { usedMs, savedMs: maxSavedMs };
      const givenMs = (elapsedMs * this.#cores * cpuShares) / allShares;
      const savedMs = before.savedMs + givenMs - Math.max(0, usedMs - before.usedMs);
      const kept = Math.min(maxSavedMs, Math.max(-maxSavedMs, savedMs));
      this.#machines.set(id, { usedMs, savedMs: kept });
      if (kept > 0) rested.add(id);
    }
    return rested;
  }
}
