import { constants } from 'node:fs';
import { access, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import {
  cgroupRoot,
  controllersOf,
  hasCgroups2,
  moveAll,
  podvmCgroup,
  removeWhenEmpty,
} from '#host/cgroup/cgroup-tree.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';

/**
 * A cgroup of this process that the host has delegated to this user (cgroups(7), "Delegation containment"), as systemd does with
 * `Delegate=yes`. It becomes the root of cgroups in the namespaces of the user, so that the node makes cgroups in it as
 * root's does. Below it: `podvm` with one cgroup for each machine, and a leaf with all other processes, as the kernel allows none in a
 * cgroup that passes on controllers.
 */
export type Delegation =
  | { readonly kind: 'delegated'; readonly path: string }
  | { readonly kind: 'none'; readonly why: string };

/** Controllers without which machines have no cgroups. */
export const required: readonly string[] = ['memory', 'pids'];
const wanted: readonly string[] = [...required, 'cpu', 'io'];
const leaf = 'podvm-processes';

/** Environment by which a user's command reaches the systemd of that user. */
export function userSystemdEnv(): Readonly<Record<string, string>> {
  const { PATH = '/usr/bin:/bin', XDG_RUNTIME_DIR = `/run/user/${process.getuid?.()}` } = process.env;
  return { PATH, XDG_RUNTIME_DIR };
}

/**
 * Finds the cgroup that a node has which this process starts. `left`: path of that of a node of the same state directory which was
 * killed, and which the next one gives back first.
 */
export async function findDelegation(left?: string): Promise<Delegation> {
  const none = (why: string) => ({ kind: 'none', why }) as const;
  if (!(await hasCgroups2())) return none('the host has no cgroups of version 2');
  const present = await findOwnCgroup();
  if (present === undefined) return none('this process sees no cgroup of its own');
  const isInLeaf = basename(present) === leaf;
  const own = isInLeaf ? dirname(present) : present;
  const path = join(cgroupRoot, own);
  // In it, a second node would move the processes of the first.
  if (isInLeaf && path !== left) return none(`the cgroup ${own} is used by the node of another state directory`);
  // The mount may show another part of the hierarchy than the path is in, as in some containers.
  const processes = await readFile(join(cgroupRoot, present, 'cgroup.procs'), 'latin1').catch(() => '');
  if (!processes.split('\n').includes(String(process.pid)))
    return none(`${cgroupRoot} does not show the cgroup ${own}`);
  const isOwned = await Promise.all(
    ['', 'cgroup.procs', 'cgroup.subtree_control'].map((file) => mayWrite(join(path, file))),
  );
  const unit = userUnit(own);
  if (!isOwned.every(Boolean) || (unit !== undefined && !(await isDelegated(unit)))) {
    return none(`the cgroup ${own} is not delegated to this user`);
  }
  const missing = lackingOf(await controllersOf(path)).filter((each) => required.includes(each));
  if (missing.length > 0) return none(`the cgroup ${own} lacks the controllers ${missing.join(', ')}`);
  return { kind: 'delegated', path };
}

/** Controllers for limits of machines that are not among those. */
export function lackingOf(controllers: readonly string[]): readonly string[] {
  return wanted.filter((each) => !controllers.includes(each));
}

export async function findOwnCgroup(): Promise<string | undefined> {
  return ownCgroup(await readFile('/proc/self/cgroup', 'utf8'));
}

/**
 * Path of the cgroup of version 2 in the text of `/proc/self/cgroup` (cgroups(7)); undefined if it is removed, outside of what
 * this process sees, or not a path that can be printed.
 */
export function ownCgroup(text: string): string | undefined {
  const [line, ...others] = text.split('\n').filter((each) => each.startsWith('0::'));
  const path = line?.slice('0::'.length);
  if (path === undefined || others.length > 0 || !/^\/[\x20-\x7e]*$/.test(path)) return undefined;
  const isWrong =
    path !== '/' &&
    path
      .slice(1)
      .split('/')
      .some((name) => ['', '.', '..'].includes(name));
  return isWrong || path.endsWith(' (deleted)') ? undefined : path;
}

/**
 * Name of the unit of the user's own systemd that a cgroup belongs to. That systemd gives each of its units a cgroup that the user may
 * write to, but shares only those with `Delegate=`.
 */
export function userUnit(cgroup: string): string | undefined {
  const [, below] = /\/user@\d+\.service\/(.*)$/.exec(cgroup) ?? [];
  return below === undefined ? undefined : (below.split('/').find((name) => /\.(?:scope|service)$/.test(name)) ?? '');
}

async function isDelegated(unit: string): Promise<boolean> {
  const words = ['--user', 'show', '--property=Delegate', '--value', '--', unit];
  const answer = await run('systemctl', words, { env: userSystemdEnv(), timeoutMs: 10_000 }).catch(() => undefined);
  return answer?.stdout.trim() === 'yes';
}

const mayWrite = async (path: string) =>
  await access(path, constants.W_OK).then(
    () => true,
    () => false,
  );

/** Moves the processes of a delegated cgroup into its leaf. Errors: the kernel's. */
export async function makeRoom(cgroup: string): Promise<void> {
  await mkdir(join(cgroup, leaf), { recursive: true });
  await moveAll(cgroup, join(cgroup, leaf));
}

/** Moves this process into the leaf. Errors: the kernel's, where the user may not move it. */
export async function enterLeaf(cgroup: string): Promise<void> {
  await writeFile(join(cgroup, leaf, 'cgroup.procs'), String(process.pid));
}

/**
 * Removes what podvm has made in a delegated cgroup and moves the processes back, after the last machine in it has ended. Where something
 * else uses the cgroup meanwhile, the rest stays as it is. Does nothing to one without a leaf: a record of before a restart of the host may name
 * a cgroup that now is another's. Errors: the kernel's.
 */
export async function giveBack(cgroup: string): Promise<void> {
  if (!(await isThere(join(cgroup, leaf)))) return;
  try {
    const ours = join(cgroup, podvmCgroup);
    await Promise.all((await directoriesIn(ours)).map((name) => removeWhenEmpty(join(ours, name))));
    await removeWhenEmpty(ours);
    if ((await directoriesIn(cgroup)).some((name) => name !== leaf)) return; // of the user, with our controllers
    const control = join(cgroup, 'cgroup.subtree_control');
    const given = (await readFile(control, 'latin1')).trim().split(' ').filter(Boolean);
    await writeFile(control, given.map((each) => `-${each}`).join(' '));
    await moveAll(join(cgroup, leaf), cgroup);
    await removeWhenEmpty(join(cgroup, leaf));
  } catch (error) {
    const code = error instanceof PodvmError ? error.kind : (error as NodeJS.ErrnoException).code; // SAFE: of the kernel
    if (!['busy', 'EBUSY', 'ENOENT'].includes(code ?? '')) throw error;
  }
}

async function directoriesIn(cgroup: string): Promise<readonly string[]> {
  const entries = await readdir(cgroup, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return entries.filter((each) => each.isDirectory()).map(({ name }) => name);
}
