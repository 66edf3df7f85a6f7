import { spawn } from 'node:child_process';
import { chmod, chown, mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { defaultEnv } from '#host/run.ts';
import { dropToNobody, nobody } from './nobody.ts';

export interface MakeErofsOptions {
  /** Directory of extracted packages that holds `mkfs.erofs`; all that the jail sees of programs. */
  readonly sysroot: string;
  /** Empty directory for the work; the file is made in it. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

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
  const [program, ...args] = jailedMkfs(options.sysroot, work);
  const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'pipe'], env: defaultEnv() });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('latin1')).slice(-4096);
  });
  const ended = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'nothing'));
  });
  const fed = pipeline(tar, child.stdin, { signal: options.signal }).catch((error: unknown) => {
    child.kill('SIGKILL');
    return error;
  });
  const [code, feedError] = await Promise.all([ended, fed]);
  if (options.signal.aborted) throw new PodvmError('cancelled', 'Cannot flatten the image: cancelled');
  if (feedError instanceof PodvmError) throw feedError;
  const isFed = feedError === undefined || (feedError as NodeJS.ErrnoException).code === 'EPIPE';
  if (isFed && code === 0) return;
  if (/No space left|Error 28|File too large/.test(said)) {
    throw new PodvmError('exhausted', 'Cannot flatten the image: the disk is full', {
      fix: 'Free some space or remove images with `podvm image rm`.',
    });
  }
  const tail = said
    .trimEnd()
    .split('\n')
    .slice(-4)
    .map((line) => printable(line));
  throw new PodvmError('internal', `Cannot flatten the image: mkfs.erofs ended with ${code}`, {
    tail,
    ...(isFed ? {} : { cause: feedError }),
  });
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
