import { mkdir, readlink, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { Assets } from '#host/assets.ts';
import { readReady } from '#setup/setup.ts';
import { settings } from '../configuration/settings.ts';

/** State directory of root, whose set-up serves all users. */
const machineRoot = settings.root.default;

/**
 * Lets an ordinary user's state directory have the parts that set-up has made for the whole machine: they contain no data of
 * a pod, and every user may read them.
 */
export async function linkMachineParts(root: string): Promise<void> {
  const path = join(root, 'assets');
  const target = join(machineRoot, 'assets');
  await mkdir(join(root, 'parts'), { recursive: true });
  const isMade = async () => (await readlink(path).catch(() => undefined)) === target;
  if (await isMade()) return;
  await symlink(target, path).catch(async (error: unknown) => {
    if (!(await isMade())) throw error; // else another command of this user was faster
  });
}

/** Returns the machine's parts. Errors: `failedPrecondition` when root has not set it up for this version. */
export async function machineAssets(repo: string): Promise<Assets> {
  const assets = await readReady({ root: machineRoot, repo });
  if (assets !== undefined) return assets;
  throw new PodvmError(
    'failedPrecondition',
    `Cannot run pods: this machine is not set up for this version of podvm, in ${machineRoot}`,
    { fix: 'Run `podvm setup` as root, once for all users.' },
  );
}
