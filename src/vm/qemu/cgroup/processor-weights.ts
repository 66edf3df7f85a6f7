import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { idleMsOf } from '#host/idle-time.ts';
import { portionsOf } from '#host/portions.ts';
import { cpuSecondsOf, statFields } from '#host/process/process-stat.ts';
import type { HostLimits } from '../../driver.ts';
import { ProcessorSavings, type ProcessorUse, restedFactor } from './processor-savings.ts';

export type CpuLimits = Pick<HostLimits, 'cpuMillis' | 'cpuShares'>;

interface Weighed {
  readonly pids: Set<number>;
  limits: CpuLimits;
  factor: number;
  readonly write: (limits: CpuLimits) => Promise<void>;
}

/** The kernel's bound. */
const maxShares = 262_144;

/** What a test replaces: how files of `/proc` are read, and how the time between two portions of a look passes. */
interface Sight {
  readonly read: (path: string) => string;
  readonly pause: (ms: number) => Promise<unknown>;
}
const realSight: Sight = {
  read: (path) => readFileSync(path, 'latin1'),
  pause: (ms) => delay(ms, undefined, { ref: false }),
};

/** Time in which each machine is looked at once. */
const lookMs = 1000;
/** Most portions of a look: this process wakes for each, and reads those of a hundred machines in a fifth of a millisecond. */
const maxPortions = 20;

/** Sets the CPU weight of each machine of this process: the shares of its limits, and more if it has rested. */
export class ProcessorWeights {
  readonly #sight: Sight;
  readonly #machines = new Map<string, Weighed>();
  readonly #savings = new ProcessorSavings();
  #isLooking = false;

  constructor(sight = realSight) {
    this.#sight = sight;
  }

  /** Limits the machine from now on. `write` sets the limits in the kernel. Errors: those of `write`. */
  async limit(id: string, limits: CpuLimits, write: Weighed['write']): Promise<void> {
    const machine = this.#machines.get(id) ?? { pids: new Set(), limits, factor: restedFactor, write };
    machine.limits = limits;
    await apply(machine);
    this.#machines.set(id, machine);
    this.#look();
  }

  /** Counts the processor time of that process as the machine's. */
  joined(id: string, pid: number): void {
    this.#machines.get(id)?.pids.add(pid);
  }

  left(id: string, pid: number): void {
    this.#machines.get(id)?.pids.delete(pid);
  }

  forget(id: string): void {
    this.#machines.delete(id);
  }

  /**
   * Checks all of them in `lookMs`, again and again as long as there are any. A look that cannot read, such as for lack of
   * file descriptors, counts nothing: the next one counts that time, too.
   */
  #look(): void {
    if (this.#isLooking) return;
    const again = (): void => {
      this.#isLooking = this.#machines.size > 0;
      if (this.#isLooking) this.#weigh().then(again, again);
    };
    again();
  }

  /** Reads a few machines at a time, because lists and statuses wait for as long as this takes. */
  async #weigh(): Promise<void> {
    const { read, pause } = this.#sight;
    const uses = new Map<string, ProcessorUse>();
    const portions = portionsOf([...this.#machines], maxPortions);
    for (const portion of portions) {
      await pause(lookMs / portions.length);
      for (const [id, machine] of portion) {
        if (this.#machines.get(id) !== machine) continue; // it has ended
        const usedMs = [...machine.pids].reduce((sum, pid) => sum + processorMs(pid, read), 0);
        uses.set(id, { usedMs, cpuShares: machine.limits.cpuShares });
      }
    }
    const rested = this.#savings.rested(idleMsOf(read('/proc/stat')), uses);
    for (const id of uses.keys()) {
      const machine = this.#machines.get(id);
      const factor = rested.has(id) ? restedFactor : 1;
      if (machine === undefined || machine.factor === factor) continue;
      const before = machine.factor;
      machine.factor = factor;
      await apply(machine).catch(() => (machine.factor = before)); // it has ended, or the next look tries again
    }
  }
}

/** The one instance, since all machines compete for the same processor. */
export const processorWeights = new ProcessorWeights();

async function apply({ limits, factor, write }: Weighed): Promise<void> {
  await write({ ...limits, cpuShares: Math.min(maxShares, limits.cpuShares * factor) });
}

/**
 * Processor time of all threads since the process began; 0 when it is gone. Read synchronously, which takes this process a
 * fraction of the time of asynchronous calls.
 */
function processorMs(pid: number, read: Sight['read']): number {
  return 1000 * cpuSecondsOf(statFields(textOf(pid, read)));
}

function textOf(pid: number, read: Sight['read']): string {
  try {
    return read(`/proc/${pid}/stat`);
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error; // 0 would cost it all its savings at the next look
  }
}
