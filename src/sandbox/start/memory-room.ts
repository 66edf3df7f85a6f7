import { PodvmError } from '#base/errors.ts';
import type { SandboxLimits } from '../limits.ts';
import type { Surroundings } from '../parts.ts';
import type { Pool } from './pool.ts';

export interface MemoryRoom {
  readonly surroundings: Pick<Surroundings, 'availableBytes' | 'log'>;
  readonly limits: Pick<SandboxLimits, 'memoryReserveBytes' | 'startBytes'>;
  readonly pool: Pick<Pool, 'giveBack'>;
}

/**
 * Makes sure that this many starts leave the node's reserve of memory, or refuses, so that the kernel need not choose which
 * process of the node to kill. Waiting machines are given back first. Templates are not removed: their pages are those of
 * files, which the kernel takes back by itself and counts as available. Errors: `exhausted`.
 */
export async function makeRoom({ surroundings, limits, pool }: MemoryRoom, starts: number): Promise<void> {
  const { memoryReserveBytes, startBytes } = limits;
  if (memoryReserveBytes === 0) return;
  const needed = memoryReserveBytes + starts * startBytes;
  if ((await surroundings.availableBytes()) >= needed) return;
  await pool.giveBack('memory is short');
  const available = await surroundings.availableBytes();
  if (available >= needed) return;
  const mib = (bytes: number) => `${Math.floor(bytes / 1024 / 1024)} MiB`;
  surroundings.log.warn('memory is short: a pod is refused', {
    available: mib(available),
    reserve: mib(memoryReserveBytes),
  });
  throw new PodvmError(
    'exhausted',
    `Cannot make a sandbox: the node has ${mib(available)} of memory available, of which it keeps ${mib(memoryReserveBytes)}; a machine takes ${mib(startBytes)} to start`,
    { fix: 'Stop a pod or another program of the node, or lower the setting memoryReserveMiB.' },
  );
}
