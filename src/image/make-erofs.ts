import { spawn } from 'node:child_process';
import { chmod, chown, mkdir, open, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { PodvmError } from '#base/errors.ts';
import { defaultEnv, exitCodeOf, tailOf } from '#host/run.ts';
import { killedHelper } from './killed-helper.ts';
import { dropToNobody, nobody } from './nobody.ts';

export interface MakeErofsOptions {
  /** Directory of extracted packages that holds `mkfs.erofs`; all that the jail sees of programs. */
  readonly sysroot: string;
  /** Empty directory for the work; the file is made in it. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

const fullBelowBytes = 1024 * 1024;
const cpuSeconds = 1200;
const memoryBytes = 4 * 1024 * 1024 * 1024;

/**
 * Writes a tar as a read-only EROFS file, root's, and returns its path; the same tar gives the same bytes. Errors:
 * those of the tar's maker, `exhausted` (disk), `internal`, `cancelled`.
 */
export async function makeErofs(tar: AsyncIterable<Buffer>, options: MakeErofsOptions): Promise<string> {
  const work = join(options.directory, 'jail');
  await mkdir(work, { mode: 0o700 });
  await chown(work, nobody, nobody);
  await runMkfs(tar, work, options);
  const file = join(work, 'rootfs.erofs');
  await chown(file, 0, 0);
  await chmod(file, 0o444);
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  return file;
}

async function runMkfs(tar: AsyncIterable<Buffer>, work: string, options: MakeErofsOptions): Promise<void> {
  const { signal } = options;
  const [program, ...args] = jailedMkfs(options.sysroot, work);
  const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'pipe'], env: defaultEnv() });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('latin1')).slice(-4096);
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, killedBy) => resolve(exitCodeOf(code, killedBy)));
  });
  const kill = () => child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  const fed = pipeline(tar, child.stdin, { signal }).catch((error: unknown) => {
    if (isDeaf(error)) return undefined; // it is ending, and says itself why
    kill();
    return error;
  });
  const [code, feedError] = await Promise.all([ended, fed]).finally(() => signal.removeEventListener('abort', kill));
  if (signal.aborted) throw new PodvmError('cancelled', 'Cannot flatten the image: cancelled');
  if (feedError instanceof PodvmError) throw feedError;
  if (feedError === undefined && code === 0) return;
  throw await failureOf(code, said, work, feedError);
}

/** What writing to a program gives that reads no more. */
function isDeaf(error: unknown): boolean {
  return ['EPIPE', 'ECANCELED', 'ERR_STREAM_PREMATURE_CLOSE'].includes((error as NodeJS.ErrnoException).code ?? '');
}

async function failureOf(code: number, said: string, work: string, feedError: unknown): Promise<PodvmError> {
  if (/No space left|Disk quota exceeded|Error (?:28|122)\b|File too large/.test(said) || (await isFull(work))) {
    return new PodvmError('exhausted', 'Cannot flatten the image: the disk is full', {
      fix: 'Free some space or remove images with `podvm image rm`.',
    });
  }
  const killed = feedError === undefined ? killedHelper('flatten the image', 'mkfs.erofs', code, said) : undefined;
  if (killed !== undefined) return killed;
  return new PodvmError('internal', `Cannot flatten the image: mkfs.erofs ended with ${code}`, {
    tail: tailOf(said),
    ...(feedError === undefined ? {} : { cause: feedError }),
  });
}

/**
 * Whether what mkfs.erofs has left behind fills the disk. Of a write that found no room it does not tell: it takes the
 * tar to go on where the write stopped, and blames the tar ("invalid chksum").
 */
async function isFull(work: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(work);
  return bavail * bsize < fullBelowBytes;
}

function jailedMkfs(sysroot: string, work: string): [string, ...string[]] {
  const limits = ['prlimit', `--cpu=${cpuSeconds}`, `--as=${memoryBytes}`, '--core=0'];
  const jail = [
    ...['bwrap', '--unshare-all', '--new-session', '--die-with-parent', '--ro-bind', join(sysroot, 'usr'), '/usr'],
    ...['--symlink', 'usr/lib64', '/lib64', '--symlink', 'usr/lib', '/lib', '--dev', '/dev', '--proc', '/proc'],
    ...['--tmpfs', '/tmp', '--bind', work, '/work', '--chdir', '/work'],
  ];
  // Fixed time and UUID: the same tar gives the same file.
  const mkfs = ['mkfs.erofs', '--tar=f', '--sort=none', '-T0', '--mkfs-time', '-Uclear', '-d0', 'rootfs.erofs'];
  return ['setpriv', ...dropToNobody, ...limits, ...jail, ...mkfs];
}
