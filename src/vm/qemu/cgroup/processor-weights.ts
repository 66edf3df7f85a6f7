import { readFile } from 'node:fs/promises';
import { idleMsOf } from '#host/idle-time.ts';
import { cpuSecondsOf, statFields } from '#host/process/process-stat.ts';
import type { HostLimits } from '../../driver.ts';
import { ProcessorSavings, restedFactor } from './processor-savings.ts';

export type CpuLimits = Pick<HostLimits, 'cpuMillis' | 'cpuShares'>;

interface Weighed {
  readonly pids: Set<number>;
  limits: CpuLimits;
  factor: number;
  readonly write: (limits: CpuLimits) => Promise<void>;
}

/** The kernel's bound. */
const maxShares = 262_144;

/** What a test replaces: how files of `/proc` are read, and the time between two looks. */
interface Sight {
  readonly read: (path: string) => Promise<string>;
  readonly lookMs: number;
}
const realSight: Sight = { read: (path) => readFile(path, 'latin1'), lookMs: 1000 };

/** Sets the CPU weight of each machine of this process: the shares of its limits, and more if it has rested. */
export class ProcessorWeights {
  readonly #sight: Sight;
  readonly #machines = new Map<string, Weighed>();
  readonly #savings = new ProcessorSavings();
  #timer: NodeJS.Timeout | undefined;

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
   * Checks all of them every `lookMs`, as long as there are any. A look that cannot read, such as for lack of file
   * descriptors, counts nothing: the next one counts that time, too.
   */
  #look(): void {
    if (this.#timer !== undefined || this.#machines.size === 0) return;
    this.#timer = setTimeout(() => {
      const next = () => {
        this.#timer = undefined;
        this.#look();
      };
      this.#weigh().then(next, next);
    }, this.#sight.lookMs).unref();
  }

  async #weigh(): Promise<void> {
    const machines = [...this.#machines];
    const { read } = this.#sight;
    const uses = await Promise.all(
      machines.map(async ([id, { pids, limits }]) => {
        const usedMs = (await Promise.all([...pids].map((pid) => processorMs(pid, read)))).reduce(
          (sum, ms) => sum + ms,
          0,
        );
        return [id, { usedMs, cpuShares: limits.cpuShares }] as const;
      }),
    );
    const rested = this.#savings.rested(idleMsOf(await read('/proc/stat')), new Map(uses));
    for (const [id, machine] of machines) {
      const factor = rested.has(id) ? restedFactor : 1;
      if (machine.factor === factor) continue;
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

/** Processor time of all threads since the process began; 0 when it is gone. */
async function processorMs(pid: number, read: Sight['read']): Promise<number> {
  const text = await read(`/proc/${pid}/stat`).catch((error: unknown) => {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error; // 0 would cost it all its savings at the next look
  });
  return 1000 * cpuSecondsOf(statFields(text));
}
