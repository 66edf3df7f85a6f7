import { join } from 'node:path';
import { readFileIfThere } from './file/files.ts';
import { programVersion } from './program-files.ts';

/** Files of a release: the program that hands a command to a node (`src/cli/served/caller.c`), and the key of the release. */
export const callerFiles = { program: 'programs/caller', key: 'programs/caller-key' } as const;

/** Names the build of the program in a directory: a release has a hash of its code, a checkout only its version. */
export async function programKey(directory: string): Promise<string> {
  const ofRelease = await readFileIfThere(join(directory, callerFiles.key));
  return ofRelease?.trim() ?? (await programVersion(directory));
}
