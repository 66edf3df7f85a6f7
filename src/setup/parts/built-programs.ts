import { chmod, copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfThere } from '#host/file/files.ts';
import type { ProgramBuilder } from './recipes.ts';

/**
 * Directory of a release with the programs that a checkout builds: `agent`, `files` (the file server), and `key`, the
 * hash of their sources.
 */
const directory = 'programs';

/** Hash of the sources of a release's built programs; undefined in a checkout. */
export async function builtProgramsKey(repo: string): Promise<string | undefined> {
  return (await readFileIfThere(join(repo, directory, 'key')))?.trim();
}

/** Returns the builder of agent and file server: copies them in a release, and builds them in a checkout. */
export async function programBuilderOf(repo: string): Promise<ProgramBuilder> {
  if ((await builtProgramsKey(repo)) !== undefined) return copyBuilt;
  return (await import('./build-program.ts')).buildProgram; // loads a bundler, which a start without work does not need
}

const copyBuilt: ProgramBuilder = async ({ repo, outFile, calls }) => {
  await copyFile(join(repo, directory, calls === 'guest' ? 'agent' : 'files'), outFile);
  await chmod(outFile, 0o755);
};
