import { chmod, lstat, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { startChild } from '#host/start-child.ts';
import { write } from './terminal.ts';

/**
 * Unpacks a tar archive of a container into an empty directory that only this user can reach, so that its names cannot
 * meet files of the host. GNU tar strips leading slashes, refuses `..`, and makes symbolic links that lead out of the
 * directory last. Only files, directories and symbolic links are kept, without set-user-ID and set-group-ID bits;
 * returns the names of the others. Errors: those of `archive`; `failedPrecondition`.
 */
export async function unpackArchive(
  archive: (output: (bytes: Buffer) => Promise<void>) => Promise<void>,
  directory: string,
): Promise<readonly string[]> {
  const child = await startChild(
    'tar',
    ['-x', '--no-same-owner', '--no-same-permissions', '-C', directory, '-f', '-'],
    {
      stdio: ['pipe', 'ignore', 'pipe'],
    },
  );
  const { stdin, stderr } = child;
  if (stdin === null || stderr === null) throw new Error('tar without pipes');
  stdin.on('error', () => undefined); // reported by the exit code
  const ended = new Promise<number | null>((done) => child.once('close', done));
  const said = text(stderr);
  await archive((bytes) => write(stdin, bytes)).finally(() => stdin.end());
  if ((await ended) !== 0) throw tarFailed('the archive', await said);
  return await removeOdd(directory, '').catch((cause: unknown) => {
    if ((cause as NodeJS.ErrnoException).code !== 'ENAMETOOLONG') throw cause;
    throw new PodvmError('failedPrecondition', 'Cannot copy the archive: a path in it is too long for this host', {
      fix: 'Copy a directory that is further down.',
    });
  });
}

async function removeOdd(directory: string, below: string): Promise<readonly string[]> {
  const odd: string[] = [];
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const found = await lstat(path);
    if (found.isSymbolicLink()) continue;
    if (found.isDirectory() || found.isFile()) {
      if ((found.mode & 0o7000) !== 0) await chmod(path, found.mode & 0o777);
      if (found.isDirectory()) odd.push(...(await removeOdd(path, join(below, name))));
    } else {
      await rm(path);
      odd.push(printable(join(below, name), maxNameChars));
    }
  }
  return odd;
}

const maxNameChars = 200;

/** `said`: standard error of tar. The first line is shown, because the last one only says that there were errors. */
export function tarFailed(what: string, said: string): PodvmError {
  const [first = ''] = said.trim().split('\n');
  return new PodvmError('failedPrecondition', `Cannot copy ${what}: ${printable(first || 'tar failed', 300)}`, {
    fix: 'Check that the path exists and that the container has tar; `podvm exec POD ls` shows its files.',
  });
}
