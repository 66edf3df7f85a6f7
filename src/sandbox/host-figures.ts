import { type ProcessFigures, readProcessFigures, readThreadTimes, type ThreadTime } from '#host/process-figures.ts';
import type { LinkTraffic } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';

/** Resources that the host spends on one sandbox. */
export interface HostFigures {
  /** Memory of its machine, used or not. */
  readonly guestMemoryBytes: number;
  /** Memory, processor time and disk traffic of its VMM. */
  readonly vmm: ProcessFigures;
  /** Times of the VMM's threads that run the machine's processors. */
  readonly vcpus: ThreadTime;
  readonly link: LinkTraffic;
}

/** Measures without the guest; undefined when the VMM is gone. `threads`: see `Machine.vcpuThreads`. */
export async function measureHost(
  { memoryMiB, record: { pid } }: Pick<Machine, 'memoryMiB' | 'record'>,
  threads: readonly number[],
  link: LinkTraffic,
): Promise<HostFigures | undefined> {
  const [vmm, vcpus] = await Promise.all([readProcessFigures(pid), readThreadTimes(pid, threads)]);
  if (vmm === undefined) return undefined;
  return { guestMemoryBytes: memoryMiB * 1024 * 1024, vmm, vcpus, link };
}
