import type { ChildProcess } from 'node:child_process';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { run } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import { CopyRoom } from './copy-room.ts';
import { write } from '../terminal/terminal.ts';

/** Writes an archive, piece by piece, until it has ended or `output` throws. */
export type Archive = (output: (bytes: Buffer) => Promise<void>) => Promise<void>;

/** Limit of tar's memory. It remembers links and directories of an archive to its end, and reads a name as a whole. */
const maxTarBytes = 1024 ** 3;
/** Limit of tar's standard error that is kept. */
const maxSaidChars = 4096;
const maxNameChars = 200;
/** Length of a path that the kernel refuses (PATH_MAX). */
const maxPathBytes = 4096;
/** Millions of files take a while; Ctrl-C ends it. */
const walkMs = 24 * 3600 * 1000;

/**
 * Unpacks a tar archive of a container into an empty directory that only this user can reach, so that its names cannot
 * meet files of the host. GNU tar strips leading slashes, refuses `..`, and makes symbolic links that lead out of the
 * directory last. Ends when the disk is nearly full. Only files, directories and symbolic links are kept, without
 * set-user-ID and set-group-ID bits; returns the names of the others. Errors: those of `archive`; `exhausted`;
 * `failedPrecondition`.
 */
export async function unpackArchive(archive: Archive, directory: string): Promise<readonly string[]> {
  const room = await CopyRoom.open(directory);
  const child = await startChild(
    'prlimit',
    [
      ...[`--data=${maxTarBytes}`, '--'],
      ...['tar', '-x', '--no-same-owner', '--no-same-permissions', '-C', directory, '-f', '-'],
    ],
    // `noArchive` matches words in English; names of files are in UTF-8.
    { stdio: ['pipe', 'ignore', 'pipe'], env: { ...process.env, LC_ALL: 'C.UTF-8' } },
  );
  const { stdin, stderr } = child;
  if (stdin === null || stderr === null) throw new Error('tar without pipes');
  stdin.on('error', () => undefined); // reported by the exit code
  let said = '';
  stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(0, maxSaidChars)));
  const ended = new Promise<number | null>((done) => child.once('close', done));
  const failed = () => tarFailed('the archive', said, archiveFix);
  try {
    await archive(async (bytes) => {
      if (hasEnded(child)) await ended;
      if (hasEnded(child) || noArchive.test(said)) throw failed(); // an endless archive would go on
      await room.check(bytes.length);
      await write(stdin, bytes);
    });
  } catch (error) {
    child.kill('SIGKILL');
    await ended; // so that the caller can remove what it has made
    throw error;
  }
  stdin.end();
  if ((await ended) !== 0) throw failed();
  await refuseLongPaths(directory);
  return await removeOdd(directory);
}

/** Tar's words about bytes in which it looks for the next header, to their end. */
const noArchive = /does not look like a tar archive|Skipping to next header/;

const hasEnded = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode !== null || signalCode !== null;

/** Refuses what most programs of this host could not open. */
async function refuseLongPaths(directory: string): Promise<void> {
  const { stdout } = await run('find', [directory, '-path', `${'?'.repeat(maxPathBytes)}*`, '-print', '-quit'], {
    timeoutMs: walkMs,
  });
  if (stdout === '') return;
  throw new PodvmError('failedPrecondition', 'Cannot copy the archive: a path in it is too long for this host', {
    fix: 'Copy a directory that is further down.',
  });
}

/** Removes special files and permissions by programs that are equal to any number of files and any length of a path. */
async function removeOdd(directory: string): Promise<readonly string[]> {
  const isOdd = ['!', '-type', 'd', '!', '-type', 'f', '!', '-type', 'l'];
  const { stdout } = await run('find', [directory, ...isOdd, '-printf', String.raw`%P\0`, '-delete'], {
    timeoutMs: walkMs,
  });
  await run('chmod', ['-R', 'a-st', '--', directory], { timeoutMs: walkMs });
  const names = stdout.split('\0').slice(0, -1);
  return names.map((name) => printable(name, maxNameChars));
}

/** Removes a directory with what was unpacked; unlike Node, also paths longer than the kernel takes. */
export async function removeUnpacked(directory: string): Promise<void> {
  await run('rm', ['-rf', '--', directory], { timeoutMs: walkMs });
}

const archiveFix = 'List what the pod sends with `podvm cp POD:PATH - | tar -tv`, and copy a part of it.';

/** `said`: standard error of tar. The first line is shown, because the last one only says that there were errors. */
export function tarFailed(
  what: string,
  said: string,
  fix = 'Check that the path exists and that the container has tar; `podvm exec POD ls` shows its files.',
): PodvmError {
  const [first = ''] = said.trim().split('\n');
  return new PodvmError('failedPrecondition', `Cannot copy ${what}: ${printable(first || 'tar failed', 300)}`, { fix });
}
