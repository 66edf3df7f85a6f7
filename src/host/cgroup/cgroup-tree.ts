import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '../file/files.ts';
import { isInside } from '../inside-namespaces.ts';
import { retry } from '../wait.ts';

/** Mount point of cgroups: version 2, or one hierarchy of version 1 for each controller below. */
export const cgroupRoot = '/sys/fs/cgroup';
/** Parent of all cgroups of this program. */
export const podvmCgroup = 'podvm';

const removeForMs = 2000;
const removePauses = { everyMs: 1, slowestMs: 25 };
/** Rounds in which all processes are moved: one may have made another during the last. */
const maxMoves = 10;

export async function hasCgroups2(): Promise<boolean> {
  return await isThere(`${cgroupRoot}/cgroup.controllers`);
}

/**
 * Makes a cgroup, and any missing parents. A recursive `mkdir` would not end where no cgroups are mounted: the kernel
 * refuses a directory in /sys with ENOENT, and Node then retries the parents forever.
 */
export async function makeCgroup(directory: string): Promise<void> {
  let path = cgroupRoot;
  for (const name of relative(cgroupRoot, directory).split('/')) {
    path = join(path, name);
    await mkdir(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error; // SAFE: mkdir throws system errors only
    });
  }
}

/** Controllers of version 2 that a cgroup may have limits of. */
export async function controllersOf(directory: string): Promise<readonly string[]> {
  const text = await readFile(join(directory, 'cgroup.controllers'), 'latin1');
  return text.trim().split(' ').filter(Boolean);
}

/**
 * Whether the cgroups of this process are delegated to an ordinary user without that controller of version 2. Root has all, or an
 * error when it hands them down.
 */
export async function isWithheld(controller: string): Promise<boolean> {
  return isInside && !(await controllersOf(cgroupRoot)).includes(controller);
}

/**
 * Enables controllers for the children of a cgroup, which version 2 requires; an ordinary user those that are delegated.
 * Errors: the kernel's.
 */
export async function handDown(directory: string, controllers: readonly string[]): Promise<void> {
  const withheld = await Promise.all(controllers.map(isWithheld));
  const given = controllers.filter((_name, at) => withheld[at] !== true);
  await writeFile(join(directory, 'cgroup.subtree_control'), given.map((name) => `+${name}`).join(' '));
}

/** Moves all processes of a cgroup to another one. Errors: the kernel's. */
export async function moveAll(from: string, to: string): Promise<void> {
  for (let round = 0; round < maxMoves; round += 1) {
    const pids = (await readFile(join(from, 'cgroup.procs'), 'latin1')).split('\n').filter(Boolean);
    if (pids.length === 0) return;
    for (const pid of pids) {
      await writeFile(join(to, 'cgroup.procs'), pid).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ESRCH') throw error; // ended
      });
    }
  }
}

/** Converts version 1's 2 to 262144 into version 2's 1 to 10000, as kubelet does. */
export function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142);
}

/**
 * Removes a cgroup, which the kernel empties shortly after its last process has ended. Errors: `busy` when it stays
 * full.
 */
export async function removeWhenEmpty(directory: string): Promise<void> {
  const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code; // SAFE: rmdir throws system errors only
  const timing = { ...removePauses, forMs: removeForMs };
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
