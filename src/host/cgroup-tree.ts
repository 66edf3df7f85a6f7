import { rmdir } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { isThere } from './files.ts';
import { retry } from './wait.ts';

/** Where cgroups are mounted: version 2, or one hierarchy of version 1 for each controller below. */
export const cgroupRoot = '/sys/fs/cgroup';
/** All cgroups of ours are below this one. */
export const podvmCgroup = 'podvm';

const removeForMs = 2000;
const removeIntervalMs = 25;

export async function hasCgroups2(): Promise<boolean> {
  return await isThere(`${cgroupRoot}/cgroup.controllers`);
}

/** As kubelet converts version 1's 2 to 262144 into version 2's 1 to 10000. */
export function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142);
}

/** The kernel empties a cgroup a moment after its last process is gone. Errors: `busy` for one that stays full. */
export async function removeWhenEmpty(directory: string): Promise<void> {
  const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code; // SAFE: rmdir throws system errors only
  const timing = { everyMs: removeIntervalMs, forMs: removeForMs };
  await retry(
    () => rmdir(directory),
    (error) => codeOf(error) === 'EBUSY',
    timing,
  ).catch((cause: unknown) => {
    if (codeOf(cause) === 'ENOENT') return;
    if (codeOf(cause) !== 'EBUSY') throw cause;
    throw new PodvmError('busy', `Cannot remove the cgroup ${directory}: processes are in it`, { cause });
  });
}
