import { chmod, lstat, mkdtemp, opendir, rename, stat } from 'node:fs/promises';
import { basename, dirname, join, posix, resolve } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { isThere } from '#host/file/files.ts';
import { startChild } from '#host/process/start-child.ts';
import type { Client } from '../client.ts';
import { CopyProgress } from './copy-progress.ts';
import { execStream } from '../exec/exec-stream.ts';
import { type Terminal, write } from '../terminal/terminal.ts';
import { type Archive, removeUnpacked, tarFailed, unpackArchive } from './unpack-archive.ts';

/** One side of a copy: a path in a container, a path of this host, or `-`, a tar archive. */
export type Place =
  | { readonly kind: 'pod'; readonly pod: string; readonly path: string }
  | { readonly kind: 'host'; readonly path: string }
  | { readonly kind: 'archive' };

/** Parses `POD:PATH`, `PATH` or `-`. What has a slash before its first colon, `./a:b`, is a path; NAMESPACE/NAME: is a pod. */
export function parsePlace(word: string): Place {
  if (word === '-') return { kind: 'archive' };
  const [, pod, path] = /^([a-z0-9][-a-z0-9.]*(?:\/[a-z0-9][-a-z0-9.]*)?):(.*)$/s.exec(word) ?? [];
  if (pod === undefined) return { kind: 'host', path: word };
  return { kind: 'pod', pod, path: path === undefined || path === '' ? '.' : path };
}

const isDirectoryAt = async (path: string): Promise<boolean> =>
  await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

interface CopyParts {
  readonly client: Client;
  readonly container: string | undefined;
  readonly terminal: Terminal;
  /** Ends the copy. */
  readonly signal: AbortSignal;
}

/**
 * Copies files and directories between a container and this host, with tar in the container. As `cp -r` does: into a
 * directory that exists, or under a new name. Errors: `invalid`, `notFound`, `failedPrecondition`.
 */
export async function copyCommand(
  client: Client,
  [from, to]: readonly [string, string],
  { container }: { readonly container?: string },
  { terminal, signal }: Pick<CopyParts, 'terminal' | 'signal'>,
): Promise<void> {
  const [source, target] = [parsePlace(from), parsePlace(to)];
  const parts = { client, container, terminal, signal };
  if (source.kind === 'pod' && target.kind !== 'pod') return await copyOut(source, target, parts);
  if (source.kind !== 'pod' && target.kind === 'pod') return await copyIn(source, target, parts);
  throw new PodvmError('invalid', 'Cannot copy: one of the two must be POD:PATH, and the other a path of this host', {
    fix: 'Write it as `podvm cp POD:PATH PATH` or `podvm cp PATH POD:PATH`.',
  });
}

type InPod = Place & { kind: 'pod' };

async function copyOut({ pod, path }: InPod, target: Place, parts: CopyParts): Promise<void> {
  const { client, container, terminal, signal } = parts;
  const normal = posix.normalize(path).replace(/(?<=.)\/+$/, '');
  const name = posix.basename(normal);
  // The paths `/`, `.` and `..` have no last name: their content is copied.
  const isWhole = name === '' || name === '.' || name === '..';
  const words = isWhole ? ['-C', normal, '-cf', '-', '.'] : ['-C', posix.dirname(normal), '-cf', '-', '--', name];
  const archive: Archive = async (output) => {
    const ended = await execStream(client, { pod, container, command: ['tar', ...words], output, signal });
    if (ended.exitCode === 0) return;
    const changed = changedFiles(ended.exitCode, ended.said);
    if (changed === undefined) throw tarFailed(`${pod}:${path}`, ended.said);
    const what = 'files changed while they were copied, and their copies may be incomplete';
    await write(terminal.stderr, `podvm: warning: ${what}: ${changed}\n`);
  };
  if (target.kind === 'archive') return await archive((bytes) => write(terminal.stdout, bytes));
  if (target.kind !== 'host') return;
  const isDirectory = await isDirectoryAt(target.path);
  const destination = isDirectory && !isWhole ? join(target.path, name) : resolve(target.path);
  // On the file system of the destination, which may be a mount point: it is moved there and not copied.
  const around = (await isDirectoryAt(destination)) ? destination : dirname(destination);
  const beside = await mkdtemp(join(around, '.podvm-cp-')).catch((cause: unknown) => {
    throw new PodvmError('failedPrecondition', `Cannot copy to ${destination}: its directory cannot be written`, {
      cause,
      fix: 'Name a path whose directory exists and can be written.',
    });
  });
  try {
    await tellOdd(await unpackShown(archive, beside, terminal), terminal);
    await place(isWhole ? beside : join(beside, name), destination);
  } finally {
    await removeUnpacked(beside);
  }
}

/** The words of GNU tar about a file that changed while it was read: its archive is whole, and the exit code is 1. */
const changedWords =
  /^tar: (.*): (?:[Ff]ile changed as we read it|File removed before we read it|File shrank by \d+ bytes?; padding with zeros)$/;

/** Describes the files that changed while tar read them; undefined if anything else went wrong. */
function changedFiles(exitCode: number, said: string): string | undefined {
  const names = said
    .trim()
    .split('\n')
    .map((line) => changedWords.exec(line)?.[1]);
  if (exitCode !== 1 || names.includes(undefined)) return undefined;
  const rest = names.length > 1 ? ` and ${names.length - 1} more` : '';
  return `${shown(names[0] ?? '')}${rest}`;
}

async function unpackShown(archive: Archive, directory: string, terminal: Terminal): Promise<readonly string[]> {
  await using progress = new CopyProgress(terminal);
  return await unpackArchive(
    (output) =>
      archive(async (bytes) => {
        await output(bytes);
        await progress.add(bytes.length);
      }),
    directory,
  );
}

/** Limit of files that are named in warnings. */
const maxTold = 20;

async function tellOdd(odd: readonly string[], { stderr }: Terminal): Promise<void> {
  const names = odd.slice(0, maxTold);
  const rest = odd.length - names.length;
  for (const name of [...names, ...(rest > 0 ? [`${rest} more`] : [])]) {
    await write(stderr, `podvm: warning: not copied, since it is neither file nor directory: ${name}\n`);
  }
}

/** A path that may end in names of the container's. */
const shown = (path: string) => printable(path, 300);

/** Moves `made` to the destination, or merges it into the directory that exists there. Errors: `failedPrecondition`. */
async function place(made: string, destination: string): Promise<void> {
  const [from, to] = await Promise.all([lstat(made), lstat(destination)].map((found) => found.catch(() => undefined)));
  if (from === undefined) throw nothingCopied(destination);
  if (to === undefined || (!to.isDirectory() && !from.isDirectory())) {
    if (from.isDirectory()) await chmod(made, (from.mode & 0o777) | 0o700);
    return await move(made, destination);
  }
  if (from.isDirectory() !== to.isDirectory()) {
    throw new PodvmError('failedPrecondition', `Cannot copy to ${shown(destination)}: one of the two is a directory`, {
      fix: 'Remove it, or choose another path.',
    });
  }
  for await (const { name } of await opendir(made)) await place(join(made, name), join(destination, name));
}

async function move(from: string, to: string): Promise<void> {
  await rename(from, to).catch((cause: unknown) => {
    const { code, message } = cause as NodeJS.ErrnoException; // SAFE: rename's
    const fix =
      code === 'EXDEV'
        ? 'Another file system is mounted below the destination: copy what belongs there to a path on it.'
        : 'Check that the destination can be written.';
    throw new PodvmError('failedPrecondition', `Cannot copy to ${shown(to)}: ${printable(message, 300)}`, {
      cause,
      fix,
    });
  });
}

const nothingCopied = (destination: string) =>
  new PodvmError('failedPrecondition', `Cannot copy to ${destination}: the container sent nothing of that name`, {
    fix: 'Name a file or directory; devices, FIFOs and sockets are not copied.',
  });

async function copyIn(
  source: Place,
  { pod, path }: InPod,
  { client, container, terminal, signal }: CopyParts,
): Promise<void> {
  const exec = async (command: readonly string[], input?: NodeJS.ReadableStream) =>
    // SAFE: pipes and standard input of Node are readable streams
    await execStream(client, { pod, container, command, signal, ...(input && { input: input as NodeJS.ReadStream }) });
  const unpack = async (directory: string, input: NodeJS.ReadableStream) => {
    const { exitCode, said } = await exec(['tar', '-C', directory, '-xf', '-'], input);
    if (exitCode !== 0) throw tarFailed(`${pod}:${path}`, said);
  };
  if (source.kind === 'archive') return await unpack(path, terminal.stdin);
  if (source.kind !== 'host') return;
  const real = resolve(source.path);
  if (!(await isThere(real))) {
    throw new PodvmError('notFound', `Cannot copy ${source.path}: there is no such file`, {
      fix: 'Name a file or directory of this host.',
    });
  }
  const isInto = path.endsWith('/') || (await exec(['test', '-d', path])).exitCode === 0;
  const name = isInto ? basename(real) : posix.basename(path);
  const renamed = name === basename(real) ? [] : ['--transform', transformOf(basename(real), name)];
  const child = await startChild(
    'tar',
    ['-C', dirname(real), ...renamed, '--no-unquote', '-cf', '-', '--', basename(real) || '.'],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const { stdout, stderr } = child;
  if (stdout === null || stderr === null) throw new Error('tar without pipes');
  // Read at once, because Node discards unread output of a child that exits.
  const archive = stdout.pipe(new PassThrough());
  const ended = new Promise<number | null>((done) => child.once('close', done));
  const said = text(stderr);
  try {
    await unpack(isInto ? path : posix.dirname(path), archive);
  } finally {
    child.kill();
  }
  if ((await ended) === 2) throw tarFailed(source.path, await said);
}

/** An expression of GNU tar that renames the first part of every name, and of the targets of hard links. */
export function transformOf(from: string, to: string): string {
  const pattern = from.replaceAll(/[\\^$.*[\]/]/g, '\\$&').replaceAll('\n', '\\n');
  const replacement = to.replaceAll(/[\\&/]/g, '\\$&').replaceAll('\n', '\\n');
  return `s/^${pattern}/${replacement}/rSh`;
}
