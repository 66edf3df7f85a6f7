import { join } from 'node:path';
import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { defaultEnv, run } from '#host/process/run.ts';
import { makeProgramTree } from './program-tree.ts';
import type { Release } from './release.ts';

/** Makes `podvm-VERSION.tgz` in `directory`; npm gives all its files one fixed date. Returns its name. */
export async function makeNpmPackage(release: Release, directory: string): Promise<string> {
  await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-npm-'));
  const tree = join(work.path, 'podvm');
  await makeProgramTree(release, tree);
  const env = {
    ...defaultEnv(),
    HOME: work.path,
    npm_config_cache: join(work.path, 'cache'),
    npm_config_logs_max: '0',
  };
  const args = ['pack', '--ignore-scripts', '--loglevel=error', '--pack-destination', directory, tree];
  await run('npm', args, { cwd: directory, env, signal: release.signal });
  return `podvm-${release.version}.tgz`;
}
