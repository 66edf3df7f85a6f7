import { constants, lstat, open, readFile, type FileHandle } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { run, signalOf, tailOf } from '#host/process/run.ts';
import type { FileFacts, Image, RootfsFacts, SharedLayer } from '../images.ts';
import { magic, superblockAt } from '../import/erofs-format.ts';
import { digestOf } from '../oci.ts';

/** Size of the first part of a file, which is read for each container and has EROFS' superblock. */
const headBytes = 4096;
/** The kernel's errors for a bad disk, or for a link or directory in the place of the file. */
const faultsOfFiles = ['EIO', 'EUCLEAN', 'EBADMSG', 'ELOOP', 'EISDIR'];
/** Size of a file whose digest takes about a millisecond. */
const smallBytes = 1024 ** 2;
const digestTimeoutMs = 60 * 60 * 1000;

/** Absolute paths of an image's own file, and of its shared layers in order. */
export interface ImagePaths {
  readonly rootfs: string;
  readonly layers: readonly string[];
}

/** Result of a look at an image's files. `changed`: one was written to or moved since its facts were taken. */
export type Look = { readonly kind: 'intact' | 'changed' } | { readonly kind: 'damaged'; readonly reason: string };

/** Returns the facts of a file that was just made, with the digest that its maker computed. */
export async function factsOf(path: string, digest: string, nowMs: number): Promise<RootfsFacts> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const { head, inode, mtimeNs } = await quickFacts(file);
  return { digest, head, inode, mtimeNs, checkedAt: new Date(nowMs).toISOString() };
}

/** Returns the record of a layer's file with that digest. */
export async function sharedLayer(path: string, digest: string): Promise<SharedLayer> {
  const { sizeBytes, ...facts } = await fileFacts(path);
  return { ...facts, digest, sizeBytes };
}

/**
 * Looks at an image's files without reading all of them: sizes, first block, and whether they are the files that were
 * written. Does not detect bits that a bad disk flips further back. Ignores the ctime, which changes with the number of
 * links for every machine.
 */
export async function lookAt(paths: ImagePaths, image: Image): Promise<Look> {
  const looks: Look[] = [await lookAtOwn(paths.rootfs, image)];
  for (const [at, layer] of (image.layers ?? []).entries())
    looks.push(await lookAtLayer(paths.layers[at] ?? '', layer));
  const first = (kind: Look['kind']) => looks.find((look) => look.kind === kind);
  return first('damaged') ?? first('changed') ?? { kind: 'intact' };
}

async function lookAtOwn(path: string, { sizeBytes, layers = [], rootfs }: Image): Promise<Look> {
  const expected = sizeBytes - layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    const { size } = await file.stat();
    if (size !== expected) return damaged(`its file has ${size} bytes instead of ${expected}`);
    const facts = await quickFacts(file);
    if (rootfs === undefined) return facts.hasMagic ? { kind: 'changed' } : damaged('its file has no superblock');
    if (facts.head !== rootfs.head) return damaged('its first block differs from what was written');
    return { kind: isSame(facts, rootfs) ? 'intact' : 'changed' };
  } catch (error) {
    return damaged(whyUnreadable(error));
  }
}

async function lookAtLayer(path: string, layer: SharedLayer): Promise<Look> {
  try {
    const facts = await fileFacts(path);
    if (facts.sizeBytes !== layer.sizeBytes)
      return damaged(`the file of a layer has ${facts.sizeBytes} bytes instead of ${layer.sizeBytes}`);
    return { kind: isSame(facts, layer) ? 'intact' : 'changed' };
  } catch (error) {
    return damaged(whyUnreadable(error, 'the file of a layer'));
  }
}

/** Whether the file of a layer is the one that was written, without reading it. */
export async function isLayerIntact(path: string, layer: SharedLayer): Promise<boolean> {
  return (await lookAtLayer(path, layer)).kind === 'intact';
}

const isSame = (one: FileFacts, two: FileFacts) => one.inode === two.inode && one.mtimeNs === two.mtimeNs;

/**
 * Reads all files of an image and compares them with their facts; a record without facts, from an older podvm, gets those
 * of the file. `isUrgent`: a container waits for it. Errors: `cancelled`, `timeout`.
 */
export async function compareWhole(
  paths: ImagePaths,
  image: Image,
  nowMs: number,
  isUrgent: boolean,
  signal: AbortSignal,
): Promise<{ readonly rootfs: RootfsFacts; readonly layers: readonly SharedLayer[] } | { readonly reason: string }> {
  const look = await lookAt(paths, image);
  if (look.kind === 'damaged') return { reason: look.reason };
  try {
    // Takes the facts before reading, so that a write during it shows as a change the next time.
    await using file = await open(paths.rootfs, constants.O_RDONLY | constants.O_NOFOLLOW);
    const { head, inode, mtimeNs } = await quickFacts(file);
    const digest = await wholeDigest(paths.rootfs, !isUrgent, signal);
    if (image.rootfs !== undefined && digest !== image.rootfs.digest)
      return { reason: 'its content differs from what was written' };
    const layers: SharedLayer[] = [];
    for (const [at, layer] of (image.layers ?? []).entries()) {
      const path = paths.layers[at] ?? '';
      const found = await sharedLayer(path, layer.digest);
      if ((await wholeDigest(path, !isUrgent, signal)) !== layer.digest)
        return { reason: 'the content of a layer differs from what was written' };
      layers.push({ ...layer, ...found }); // its source stays
    }
    return { rootfs: { digest, head, inode, mtimeNs, checkedAt: new Date(nowMs).toISOString() }, layers };
  } catch (error) {
    return { reason: whyUnreadable(error) };
  }
}

/** Returns the reason in words. Rethrows errors that are not the file's, such as too little memory for a process. */
function whyUnreadable(error: unknown, what = 'its file'): string {
  if (error instanceof PodvmError && error.kind === 'corrupt') return error.message;
  const code = error instanceof PodvmError ? undefined : (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return `${what} is gone`;
  if (code !== undefined && faultsOfFiles.includes(code)) return `${what} cannot be read: ${code}`;
  throw error;
}

const damaged = (reason: string): Look => ({ kind: 'damaged', reason });

async function fileFacts(path: string): Promise<FileFacts & { readonly sizeBytes: number }> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const { ino, mtimeNs, size } = await file.stat({ bigint: true });
  return { inode: String(ino), mtimeNs: String(mtimeNs), sizeBytes: Number(size) };
}

async function quickFacts(file: FileHandle) {
  const { ino, mtimeNs } = await file.stat({ bigint: true });
  const { bytesRead, buffer } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0);
  const head = buffer.subarray(0, bytesRead);
  const hasMagic = bytesRead > superblockAt + 4 && head.readUInt32LE(superblockAt) === magic;
  return { head: digestOf(head), inode: String(ino), mtimeNs: String(mtimeNs), hasMagic };
}

/** Computes the digest of a large file in another process, so that this one stays responsive; an idle one runs behind all others. */
export async function wholeDigest(path: string, isIdle: boolean, signal: AbortSignal): Promise<string> {
  if ((await lstat(path)).size <= smallBytes) return digestOf(await readFile(path));
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
