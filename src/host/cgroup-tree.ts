import { access, rmdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';

/** Where cgroups are mounted: version 2, or one hierarchy of version 1 for each controller below. */
export const cgroupRoot = '/sys/fs/cgroup';
/** All cgroups of ours are below this one. */
export const podvmCgroup = 'podvm';

const removeTries = 80;
const removeIntervalMs = 25;

export async function hasCgroups2(): Promise<boolean> {
  return await access(`${cgroupRoot}/cgroup.controllers`).then(
    () => true,
    () => false,
  );
}

/** As kubelet converts version 1's 2 to 262144 into version 2's 1 to 10000. */
export function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142);
}

/** The kernel empties a cgroup a moment after its last process is gone. Errors: `busy` for one that stays full. */
export async function removeWhenEmpty(directory: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException; // SAFE: rmdir throws system errors only
      if (code === 'ENOENT') return;
      if (code !== 'EBUSY') throw error;
      if (tries >= removeTries)
        throw new PodvmError('busy', `Cannot remove the cgroup ${directory}: processes are in it`, { cause: error });
    }
    await delay(removeIntervalMs);
  }
}
