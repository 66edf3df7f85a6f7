import { readFile } from 'node:fs/promises';
import { cpuSecondsOf, statFields, ticksPerSecond } from '#host/process-stat.ts';
import type { HostLimits } from '../driver.ts';
import { ProcessorSavings, restedFactor } from './processor-savings.ts';

export type CpuLimits = Pick<HostLimits, 'cpuMillis' | 'cpuShares'>;

interface Weighed {
  readonly pids: Set<number>;
  limits: CpuLimits;
  factor: number;
  readonly write: (limits: CpuLimits) => Promise<void>;
}

const lookMs = 1000;
/** The kernel's bound. */
const maxShares = 262_144;

/** Sets the CPU weight of each machine of this process: the shares of its limits, and more if it has rested. */
class ProcessorWeights {
  readonly #machines = new Map<string, Weighed>();
  readonly #savings = new ProcessorSavings();
  #timer: NodeJS.Timeout | undefined;

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

  /** Checks all of them every `lookMs`, as long as there are any. */
  #look(): void {
    if (this.#timer !== undefined || this.#machines.size === 0) return;
    this.#timer = setTimeout(() => {
      void this.#weigh().finally(() => {
        this.#timer = undefined;
        this.#look();
      });
    }, lookMs).unref();
  }

  async #weigh(): Promise<void> {
    const machines = [...this.#machines];
    const uses = await Promise.all(
      machines.map(async ([id, { pids, limits }]) => {
        const usedMs = (await Promise.all([...pids].map(processorMs))).reduce((sum, ms) => sum + ms, 0);
        return [id, { usedMs, cpuShares: limits.cpuShares }] as const;
      }),
    );
    const rested = this.#savings.rested(await idleMs(), new Map(uses));
    for (const [id, machine] of machines) {
      const factor = rested.has(id) ? restedFactor : 1;
      if (machine.factor === factor) continue;
      machine.factor = factor;
      await apply(machine).catch(() => undefined); // it has ended meanwhile
    }
  }
}

/** The one instance, since all machines compete for the same processor. */
export const processorWeights = new ProcessorWeights();

async function apply({ limits, factor, write }: Weighed): Promise<void> {
  await write({ ...limits, cpuShares: Math.min(maxShares, limits.cpuShares * factor) });
}

/** Time that all cores of the node together have idled or waited for disks since it booted (proc_stat(5)). */
async function idleMs(): Promise<number> {
  const [, idle = 0, waiting = 0] =
    /^cpu +\d+ \d+ \d+ (\d+) (\d+)/.exec(await readFile('/proc/stat', 'latin1'))?.map(Number) ?? [];
  return ((idle + waiting) * 1000) / ticksPerSecond;
}

/** Processor time of all threads since the process began; 0 when it is gone. */
async function processorMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  return 1000 * cpuSecondsOf(statFields(text));
}
