import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { acceptedSince } from './accepted.ts';
import { findBase, git, isAsMeasuredAt } from './base.ts';

interface Clone extends AsyncDisposable {
  readonly path: string;
  /** Writes a file, commits it and returns the commit. */
  commit(file: string, message?: string): Promise<string>;
}

async function newClone(): Promise<Clone> {
  const path = await mkdtemp(join(tmpdir(), 'podvm-clone-'));
  await git(path, 'init', '--quiet', '--initial-branch=main');
  let count = 0;
  return {
    path,
    async commit(file, message = 'A change') {
      await mkdir(join(path, file, '..'), { recursive: true });
      await writeFile(join(path, file), String((count += 1)));
      await git(path, 'add', '.');
      const author = ['-c', 'user.name=A tester', '-c', 'user.email=tester@example.com'];
      await git(path, ...author, 'commit', '--quiet', '--message', message);
      return await git(path, 'rev-parse', 'HEAD');
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
}

describe('findBase()', () => {
  it('finds where a branch has left main, though main has gone on', async () => {
    await using clone = await newClone();
    const left = await clone.commit('src/a.ts');
    await git(clone.path, 'checkout', '--quiet', '-b', 'work');
    await clone.commit('src/b.ts');
    await clone.commit('src/c.ts');
    await git(clone.path, 'checkout', '--quiet', 'main');
    await clone.commit('src/d.ts');
    await git(clone.path, 'checkout', '--quiet', 'work');
    assert.deepEqual(await findBase(clone.path, undefined), { commit: left, what: 'where this branch has left main' });
  });

  it('takes the commit before, on main itself', async () => {
    await using clone = await newClone();
    const before = await clone.commit('src/a.ts');
    await clone.commit('src/b.ts');
    assert.deepEqual(await findBase(clone.path, undefined), { commit: before, what: 'the commit before' });
  });

  it('has none in a shallow clone of one commit, and says so', async () => {
    await using clone = await newClone();
    await clone.commit('src/a.ts');
    await clone.commit('src/b.ts');
    await using into = await newClone();
    await git(into.path, 'clone', '--quiet', '--depth=1', `file://${clone.path}`, 'shallow');
    const found = await findBase(join(into.path, 'shallow'), undefined);
    assert.match('none' in found ? found.none : '', /shallow clone/);
  });

  it('has none where there is no clone', async () => {
    const path = await mkdtemp(join(tmpdir(), 'podvm-no-clone-'));
    const found = await findBase(path, undefined);
    await rm(path, { recursive: true });
    assert.match('none' in found ? found.none : '', /no clone of the repository/);
  });

  it('refuses a given commit that is not there', async () => {
    await using clone = await newClone();
    await clone.commit('src/a.ts');
    await assert.rejects(findBase(clone.path, 'no-such-branch'));
  });
});

describe('isAsMeasuredAt()', () => {
  it('does not count what the figures do not depend on', async () => {
    await using clone = await newClone();
    const base = await clone.commit('src/a.ts');
    await clone.commit('docs/a.md');
    await clone.commit('src/deep/a.test.ts');
    assert.equal(await isAsMeasuredAt(clone.path, base), true);
    await clone.commit('src/deep/b.ts');
    assert.equal(await isAsMeasuredAt(clone.path, base), false);
  });

  it('counts what is not committed', async () => {
    await using clone = await newClone();
    const base = await clone.commit('src/a.ts');
    await writeFile(join(clone.path, 'src/a.ts'), 'slower');
    assert.equal(await isAsMeasuredAt(clone.path, base), false);
  });
});

describe('acceptedSince()', () => {
  const figures = ['startMs', 'execMs'];

  it('reads the lines of commits after the base, with their reasons', async () => {
    await using clone = await newClone();
    await clone.commit('src/a.ts', 'Before\n\nRegression-accepted: execMs because it is over');
    const base = await git(clone.path, 'rev-parse', 'HEAD');
    await clone.commit('src/b.ts', 'Of two\n\nWhy.\n\nRegression-accepted: startMs because each pod\n gets a key');
    const commit = await git(clone.path, 'rev-parse', '--short', 'HEAD');
    await clone.commit('src/c.ts', 'Of none\n\nNot at the end: Regression-accepted: execMs because no');
    assert.deepEqual(await acceptedSince(clone.path, base, figures), [
      { figure: 'startMs', reason: 'each pod gets a key', commit },
    ]);
  });

  it('refuses an unknown figure, and one without a reason', async () => {
    for (const line of ['startSeconds because of a test', 'startMs', 'startMs because ']) {
      await using clone = await newClone();
      const base = await clone.commit('src/a.ts');
      await clone.commit('src/b.ts', `A change\n\nRegression-accepted: ${line}`);
      await assert.rejects(acceptedSince(clone.path, base, figures), /expected `Regression-accepted: startMs\|execMs/);
    }
  });
});
