import { readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { checkOutBuild, type CheckedOutBuild } from '../../test/upgrade/checked-out-build.ts';

/** The checkout. */
export const repo = join(import.meta.dirname, '../..');

export interface Base {
  readonly commit: string;
  /** What the commit is, in words. */
  readonly what: string;
}

/** Branches that a change is made for, as a clone of CI has them. */
const targets = ['origin/HEAD', 'origin/main', 'origin/master', 'main'];

/** What decides how fast a pod starts: the program and its packages, without tests. */
const measured = ['podvm', 'package.json', 'package-lock.json', 'src', ':(exclude,glob)src/**/*.test.ts'];

/** Returns what git prints in a clone. */
export async function git(repo: string, ...args: readonly string[]): Promise<string> {
  return (await run('git', ['-C', repo, ...args], { timeoutMs: 60_000 })).stdout.trim();
}

/**
 * Finds the commit to compare a clone with: the given one; where the branch has left that which it is made for; or the
 * commit before. A reason where the clone has none of them. Errors: a given commit that is not there.
 */
export async function findBase(repo: string, given: string | undefined): Promise<Base | { readonly none: string }> {
  const commitOf = (name: string) => git(repo, 'rev-parse', '--verify', '--quiet', `${name}^{commit}`);
  if (given !== undefined) return { commit: await commitOf(given), what: given };
  let head: string;
  try {
    head = await commitOf('HEAD');
  } catch (error) {
    return { none: `this is no clone of the repository, or git cannot read it (${messageOf(error)})` };
  }
  for (const target of targets) {
    const merged = await git(repo, 'merge-base', 'HEAD', target).catch(() => head);
    if (merged !== head) return { commit: merged, what: `where this branch has left ${target}` };
  }
  const before = await commitOf('HEAD^').catch(() => undefined);
  if (before !== undefined) return { commit: before, what: 'the commit before' };
  return { none: 'the clone has neither a main branch nor the commit before (a shallow clone?)' };
}

/** Whether the files of a clone that are measured are those of the commit. */
export async function isAsMeasuredAt(repo: string, commit: string): Promise<boolean> {
  return (await git(repo, 'diff', '--shortstat', commit, '--', ...measured)) === '';
}

/** The tree of a commit beside this one, with this one's packages if it wants the same. */
export async function buildBase(commit: string): Promise<CheckedOutBuild> {
  await using undo = new AsyncDisposableStack();
  const build = undo.use(await checkOutBuild(commit));
  const tree = dirname(build.program);
  const lock = (root: string) => readFile(join(root, 'package-lock.json'), 'utf8');
  if ((await lock(tree)) === (await lock(repo))) {
    const modules = join(tree, 'node_modules');
    const linked = run('cp', ['-a', '--link', join(repo, 'node_modules'), modules], { timeoutMs: 120_000 });
    const isLinked = await linked.then(
      () => true,
      () => false, // another file system: it installs its own
    );
    if (!isLinked) await rm(modules, { recursive: true, force: true });
    else {
      const stamp = join(modules, '.podvm-installed');
      await rm(stamp, { force: true }); // it is the same file as the checkout's
      await rm(join(modules, '.cache'), { recursive: true, force: true });
      await writeFile(stamp, '');
    }
  }
  undo.move();
  return build;
}
