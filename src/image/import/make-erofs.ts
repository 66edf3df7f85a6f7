import assert from 'node:assert/strict';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { PodvmError } from '#base/errors.ts';
import { defaultEnv, exitCodeOf, tailOf } from '#host/process/run.ts';
import { isDeaf, startChild } from '#host/process/start-child.ts';
import { killedHelper } from './killed-helper.ts';

export interface MakeErofsOptions {
  /** Directory of extracted packages that holds `mkfs.erofs` and its libraries. */
  readonly sysroot: string;
  /** Directory in which the file is made. */
  readonly work: string;
}

export const rootfsFile = 'rootfs.erofs';
const fullBelowBytes = 1024 * 1024;

/**
 * Writes a tar as a read-only EROFS file and returns its name; the same tar gives the same bytes. Errors: those of the
 * tar's producer, `exhausted` (disk), `unavailable` (killed), `internal`.
 */
export async function makeErofs(
  tar: AsyncIterable<Buffer>,
  { sysroot, work }: MakeErofsOptions,
): Promise<typeof rootfsFile> {
  const [program, ...args] = [...mkfsErofs(sysroot), '--tar=f', '--sort=none', rootfsFile] as const;
  const child = await startChild(program, args, {
    cwd: work,
    stdio: ['pipe', 'ignore', 'pipe'],
    env: defaultEnv(),
    failing: 'Cannot flatten the image: cannot run mkfs.erofs',
  });
  const { stdin, stderr } = child;
  assert(stdin !== null && stderr !== null);
  let said = '';
  stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('latin1')).slice(-4096);
  });
  const ended = new Promise<number>((resolve) => {
    child.once('close', (code, killedBy) => resolve(exitCodeOf(code, killedBy)));
  });
  const fed = pipeline(tar, stdin).catch((error: unknown) => {
    if (isDeaf(error)) return undefined; // the program is ending, and its exit reports why
    child.kill('SIGKILL');
    return error;
  });
  const [code, feedError] = await Promise.all([ended, fed]);
  if (feedError instanceof PodvmError) throw feedError;
  if (feedError === undefined && code === 0) return rootfsFile;
  throw await failureOf(code, said, work, feedError);
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
 * Whether the file of mkfs.erofs fills the disk. mkfs.erofs does not report a write that found no room: it continues in
 * the tar where the write stopped, and reports the tar as invalid ("invalid chksum").
 */
async function isFull(work: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(work);
  return bavail * bsize < fullBelowBytes;
}

/**
 * Returns the command of a sysroot's mkfs.erofs, run by the loader of its own release, so that its libraries need not
 * be the host's.
 */
export function mkfsErofs(sysroot: string): [string, ...string[]] {
  const usr = join(sysroot, 'usr');
  return [
    join(usr, 'lib64/ld-linux-x86-64.so.2'),
    ...['--inhibit-cache', '--library-path', join(usr, 'lib/x86_64-linux-gnu'), join(usr, 'bin/mkfs.erofs')],
    // Fixed time and UUID: the same content gives the same file.
    ...['-T0', '--mkfs-time', '-Uclear', '-d0'],
  ];
}
