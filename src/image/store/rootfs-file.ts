import { constants, open, type FileHandle } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { run, signalOf, tailOf } from '#host/process/run.ts';
import type { Image, RootfsFacts } from '../images.ts';
import { magic, superblockAt } from '../import/erofs-format.ts';
import { digestOf } from '../oci.ts';

/** Size of the first part of a file, which is read for each container and has EROFS' superblock. */
const headBytes = 4096;
/** The kernel's errors for a bad disk, or for a link or directory in the place of the file. */
const faultsOfFiles = ['EIO', 'EUCLEAN', 'EBADMSG', 'ELOOP', 'EISDIR'];
const digestTimeoutMs = 60 * 60 * 1000;

/** Result of a look at an image's file. `changed`: the file was written to or moved since its facts were taken. */
export type Look = { readonly kind: 'intact' | 'changed' } | { readonly kind: 'damaged'; readonly reason: string };

/** Returns the facts of a file that was just made, with the digest that its maker computed. */
export async function factsOf(path: string, digest: string, nowMs: number): Promise<RootfsFacts> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const { head, inode, mtimeNs } = await quickFacts(file);
  return { digest, head, inode, mtimeNs, checkedAt: new Date(nowMs).toISOString() };
}

/**
 * Looks at a file without reading all of it: size, first block, and whether it is the file that was written. Does not
 * detect bits that a bad disk flips further back. Ignores the ctime, which changes with the number of links for every
 * machine.
 */
export async function lookAt(path: string, { sizeBytes, rootfs }: Image): Promise<Look> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    const { size } = await file.stat();
    if (size !== sizeBytes) return damaged(`its file has ${size} bytes instead of ${sizeBytes}`);
    const facts = await quickFacts(file);
    if (rootfs === undefined) return facts.hasMagic ? { kind: 'changed' } : damaged('its file has no superblock');
    if (facts.head !== rootfs.head) return damaged('its first block differs from what was written');
    return { kind: facts.inode === rootfs.inode && facts.mtimeNs === rootfs.mtimeNs ? 'intact' : 'changed' };
  } catch (error) {
    return damaged(whyUnreadable(error));
  }
}

/**
 * Reads a file whole and compares it with its facts; a record without facts, from an older podvm, gets those of the
 * file. `isUrgent`: a container waits for it. Errors: `cancelled`, `timeout`.
 */
export async function compareWhole(
  path: string,
  image: Image,
  nowMs: number,
  isUrgent: boolean,
  signal: AbortSignal,
): Promise<{ readonly facts: RootfsFacts } | { readonly reason: string }> {
  const look = await lookAt(path, image);
  if (look.kind === 'damaged') return { reason: look.reason };
  try {
    // Takes the facts before reading, so that a write during it shows as a change the next time.
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    const { head, inode, mtimeNs } = await quickFacts(file);
    const digest = await wholeDigest(path, !isUrgent, signal);
    if (image.rootfs !== undefined && digest !== image.rootfs.digest)
      return { reason: 'its content differs from what was written' };
    return { facts: { digest, head, inode, mtimeNs, checkedAt: new Date(nowMs).toISOString() } };
  } catch (error) {
    return { reason: whyUnreadable(error) };
  }
}

/** Returns the reason in words. Rethrows errors that are not the file's, such as too little memory for a process. */
function whyUnreadable(error: unknown): string {
  if (error instanceof PodvmError && error.kind === 'corrupt') return error.message;
  const code = error instanceof PodvmError ? undefined : (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'its file is gone';
  if (code !== undefined && faultsOfFiles.includes(code)) return `its file cannot be read: ${code}`;
  throw error;
}

const damaged = (reason: string): Look => ({ kind: 'damaged', reason });

async function quickFacts(file: FileHandle) {
  const { ino, mtimeNs } = await file.stat({ bigint: true });
  const { bytesRead, buffer } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0);
  const head = buffer.subarray(0, bytesRead);
  const hasMagic = bytesRead > superblockAt + 4 && head.readUInt32LE(superblockAt) === magic;
  return { head: digestOf(head), inode: String(ino), mtimeNs: String(mtimeNs), hasMagic };
}

/** Computes the digest in another process, so that this one stays responsive; an idle one runs behind all others. */
async function wholeDigest(path: string, isIdle: boolean, signal: AbortSignal): Promise<string> {
  const args = ['--', path];
  const behind = ['-n', '19', 'ionice', '-c', '3', 'sha256sum', ...args];
  const options = { signal, timeoutMs: digestTimeoutMs, okCodes: 'any' } as const;
  const ended = isIdle ? await run('nice', behind, options) : await run('sha256sum', args, options);
  const { code, stdout, stderr } = ended;
  if (code === 1) throw new PodvmError('corrupt', `its file cannot be read: ${printable(tailOf(stderr).at(-1) ?? '')}`);
  if (code !== 0) {
    const ending = signalOf(code) ?? `it ended with ${code}`;
    throw new PodvmError('unavailable', `Cannot read ${path}: sha256sum failed: ${ending}`, { tail: tailOf(stderr) });
  }
  return `sha256:${stdout.slice(0, 64)}`;
}
