import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { cgroupRoot, hasCgroups2 } from '#host/cgroup/cgroup-tree.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { findDelegation, findOwnCgroup, userSystemdEnv, userUnit } from './delegated-cgroup.ts';
import { userName } from './host-needs.ts';

/** Start the words after them in a new scope of the user's own systemd, whose cgroup that delegates. */
const scopeWords = ['systemd-run', '--user', '--scope', '--quiet', '--collect', '--property=Delegate=yes', '--'];

export type UserScope =
  | { readonly kind: 'possible'; readonly controllers: readonly string[] }
  | { readonly kind: 'none'; readonly why: string; readonly fix?: string };

/** Prints the controllers of the cgroup that it is in. */
const trial = `cat "${cgroupRoot}$(sed -n 's/^0:://p' /proc/self/cgroup)/cgroup.controllers"`;

/**
 * Tries whether the systemd of this user makes scopes that last: it ends with the last session of the user, and its scopes with it,
 * unless the user lingers (loginctl(1)). A process that is below that systemd already would end then, too.
 */
export async function findUserScope(): Promise<UserScope> {
  const { XDG_RUNTIME_DIR: directory = '' } = userSystemdEnv();
  const linger = `Run \`loginctl enable-linger ${userName()}\` as root`;
  if (!(await isThere(join(directory, 'systemd/private')))) {
    const why = 'this user has no systemd';
    return { kind: 'none', why, ...((await isThere('/run/systemd/system')) ? { fix: `${linger}.` } : {}) };
  }
  const isBelow = userUnit((await findOwnCgroup()) ?? '') !== undefined;
  if (!isBelow && !(await isThere(join('/var/lib/systemd/linger', userName())))) {
    const why = 'the systemd of this user ends with the last session, as pods in it would';
    const once = 'begin the command that starts the node with `systemd-run --user --scope --property=Delegate=yes`';
    return { kind: 'none', why, fix: `${linger}, or ${once}.` };
  }
  const [program = '', ...words] = scopeWords;
  try {
    const { stdout } = await run(program, [...words, 'sh', '-ec', trial], { env: userSystemdEnv(), timeoutMs: 10_000 });
    return { kind: 'possible', controllers: stdout.trim().split(' ') };
  } catch (error) {
    return { kind: 'none', why: `the systemd of this user makes no scope: ${messageOf(error)}` };
  }
}

/**
 * Words before the command of a node in the background by which it gets a delegated cgroup, and its environment. No words if it has one
 * already, or none is to be had.
 */
export async function placeOfNode(): Promise<{ readonly words: readonly string[]; readonly env: NodeJS.ProcessEnv }> {
  const isNeeded = process.getuid?.() !== 0 && (await hasCgroups2()) && (await findDelegation()).kind === 'none';
  if (!isNeeded || (await findUserScope()).kind === 'none') return { words: [], env: process.env };
  return { words: scopeWords, env: { ...process.env, ...userSystemdEnv() } };
}
