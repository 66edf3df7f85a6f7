import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { open, readFile, stat, type FileHandle } from 'node:fs/promises';
import { kindOf, PodvmError } from '#base/errors.ts';
import { lockFile } from '#host/file-lock.ts';
import { retry } from '#host/wait.ts';
import { run } from '#host/run.ts';

/**
 * A *claim* is the right of one machine to a block device of the node, or to an image file by way of a loop device. Two
 * machines with one file system destroy it, and so do a machine and the host: the kernel keeps them apart. The device is
 * open with O_EXCL, which no mount, no other claim and no other exclusive user gets past; an image file is locked
 * besides (flock), as each loop device of it is a device of its own. Both last as long as the VMM, whatever becomes of
 * us: a *keeper* process, which ends with the VMM, holds the same descriptors.
 */
export interface BlockClaim extends AsyncDisposable {
  readonly device: { readonly major: number; readonly minor: number };
  /** Bytes that the device has now; a file that has grown since is followed. */
  measure(signal: AbortSignal): Promise<number>;
}

export interface BlockClaimRequest {
  /** A block device or a raw image file; symbolic links are followed. */
  readonly path: string;
  readonly readOnly: boolean;
  /** Process whose end ends the claim, should we be gone by then. */
  readonly vmmPid: number;
}

/** What is at the path. Two paths with the same `key` are one thing. */
export interface BlockSource {
  readonly kind: 'device' | 'image';
  readonly key: string;
}

/** Errors: `notFound`, `unsupported` for what is neither a block device nor a file. */
export async function findBlockSource(path: string): Promise<BlockSource> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot attach ${path}: it is not there`, { cause });
  });
  if (found.isBlockDevice()) return { kind: 'device', key: `device ${found.rdev}` };
  if (found.isFile()) return { kind: 'image', key: `image ${found.dev}:${found.ino}` };
  throw new PodvmError(
    'unsupported',
    `Cannot attach ${path}: it is neither a block device nor an image file`,
    found.isDirectory()
      ? { fix: 'A file system that the host has mounted stays the host’s: unmount it and name its device.' }
      : {},
  );
}

/**
 * Errors: `busy` when the host or another machine uses it, `failedPrecondition` (read-only, no loop devices, an image
 * that is no whole number of sectors), those of `findBlockSource`. Nothing is held then.
 */
export async function claimBlock(request: BlockClaimRequest, signal: AbortSignal): Promise<BlockClaim> {
  const timing = { everyMs: pollMs, forMs: patienceMs, signal };
  return await retry(
    () => claimNow(request, signal),
    (error) => kindOf(error) === 'busy',
    timing,
  );
}

/**
 * What has just ended may hold a device for a moment still: a VMM that was killed with its podvm, by its keeper; a file
 * system that was unmounted, by a jail that was being built then and has a copy of the mount.
 */
const patienceMs = 1500;
const pollMs = 100;
const keeperPollSeconds = 0.2;

async function claimNow(request: BlockClaimRequest, signal: AbortSignal): Promise<BlockClaim> {
  const { kind } = await findBlockSource(request.path);
  await using held = new AsyncDisposableStack();
  const image = kind === 'image' ? held.use(await openImage(request, signal)) : undefined;
  const loop = image === undefined ? undefined : await attachLoop(request, image, signal);
  const devicePath = loop ?? request.path;
  let device: FileHandle;
  try {
    device = held.use(await openExclusively(request, devicePath));
  } finally {
    // With a device that is open, this means: as soon as nobody has it open any more, whoever that is by then.
    if (loop !== undefined) await run('losetup', ['--detach', loop]);
  }
  const { rdev } = await device.stat();
  const numbers = { major: majorOf(rdev), minor: minorOf(rdev) };
  held.use(await startKeeper(request.vmmPid, image === undefined ? [device] : [device, image]));
  if (!request.readOnly) held.defer(() => device.sync()); // undone first: whatever the VMM had written is on the disk
  let imageBytes = (await image?.stat())?.size;
  const owned = held.move();
  return {
    device: numbers,
    async measure(measuring) {
      const now = (await image?.stat())?.size;
      if (loop !== undefined && now !== imageBytes) {
        await run('losetup', ['--set-capacity', loop], { signal: measuring });
        imageBytes = now;
      }
      return await sizeOf(numbers);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const sectorBytes = 512;

/** From sysfs, whose unit are sectors, whatever the device's own are. */
async function sizeOf({ major, minor }: BlockClaim['device']): Promise<number> {
  return Number(await readFile(`/sys/dev/block/${major}:${minor}/size`, 'latin1')) * sectorBytes;
}

async function openExclusively({ path, readOnly }: BlockClaimRequest, devicePath: string): Promise<FileHandle> {
  const access = readOnly ? constants.O_RDONLY : constants.O_RDWR;
  await using held = new AsyncDisposableStack();
  try {
    const handle = held.use(await open(devicePath, access | constants.O_EXCL | constants.O_NONBLOCK));
    const { rdev } = await handle.stat();
    const isReadOnly = (await readFile(`/sys/dev/block/${majorOf(rdev)}:${minorOf(rdev)}/ro`, 'latin1')).trim() === '1';
    if (isReadOnly && !readOnly) throw readOnlyRefusal(path);
    held.move();
    return handle;
  } catch (cause) {
    if (cause instanceof PodvmError) throw cause;
    const { code } = cause as NodeJS.ErrnoException; // SAFE: node:fs throws system errors
    if (code === 'EBUSY') throw inUse(path, cause);
    if (code === 'EROFS' || code === 'EACCES') throw readOnlyRefusal(path, cause);
    throw new PodvmError('failedPrecondition', `Cannot attach ${path}: it cannot be opened, got ${code}`, { cause });
  }
}

async function openImage(request: BlockClaimRequest, signal: AbortSignal): Promise<FileHandle> {
  const { path, readOnly } = request;
  await using held = new AsyncDisposableStack();
  let file: FileHandle;
  try {
    file = held.use(await open(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK));
  } catch (cause) {
    throw new PodvmError('failedPrecondition', `Cannot attach ${path}: it cannot be opened`, { cause });
  }
  const { size } = await file.stat();
  if (size === 0 || size % sectorBytes !== 0) {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot attach ${path}: an image must have a multiple of ${sectorBytes} bytes, got ${size}`,
    );
  }
  if (!(await lockFile(file))) throw inUse(path);
  const { stdout } = await run('losetup', ['--noheadings', '--output', 'NAME', '--associated', path], { signal });
  const [other] = stdout.split('\n');
  if (other !== undefined && other !== '') throw inUse(path, undefined, `the host has it as ${other.trim()}`);
  held.move();
  return file;
}

/** Direct: the VMM's reads and writes pass the loop device's pages, and those of the file would be there twice. */
async function attachLoop(
  { path, readOnly }: BlockClaimRequest,
  image: FileHandle,
  signal: AbortSignal,
): Promise<string> {
  const options = ['--find', '--show', '--direct-io=on', ...(readOnly ? ['--read-only'] : [])];
  const { ino, dev } = await image.stat();
  try {
    const { stdout } = await run('losetup', [...options, path], { signal });
    const loop = stdout.trim();
    const now = await stat(path);
    if (now.ino === ino && now.dev === dev) return loop;
    await run('losetup', ['--detach', loop]);
    throw new PodvmError('busy', `Cannot attach ${path}: it has just been replaced`);
  } catch (cause) {
    if (cause instanceof PodvmError && cause.kind !== 'internal') throw cause;
    throw new PodvmError('failedPrecondition', `Cannot attach ${path}: the host gives it no loop device`, {
      cause,
      fix: 'Load the kernel module: `modprobe loop`.',
    });
  }
}

/** coreutils' tail ends with the process that it is told: all that is wanted of it. */
async function startKeeper(vmmPid: number, handles: readonly FileHandle[]): Promise<AsyncDisposable> {
  const child = spawn('tail', ['-f', '/dev/null', `--pid=${vmmPid}`, `--sleep-interval=${keeperPollSeconds}`], {
    detached: true, // it must outlive us, and signals to our terminal's group are not for it
    stdio: ['ignore', 'ignore', 'ignore', ...handles.map(({ fd }) => fd)],
  });
  const ended = endOf(child, 'tail');
  ended.catch(() => undefined); // looked at below
  if (child.pid === undefined) await ended;
  child.unref();
  return {
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function endOf(child: ChildProcess, program: string): Promise<unknown> {
  try {
    const [code] = (await once(child, 'exit')) as [unknown];
    return code;
  } catch (cause) {
    throw new PodvmError('failedPrecondition', `Cannot attach a block volume: cannot run ${program}`, { cause });
  }
}

function inUse(path: string, cause?: unknown, who = 'the host or another machine uses it'): PodvmError {
  return new PodvmError('busy', `Cannot attach ${path}: ${who}`, {
    cause,
    fix: 'Unmount it on the host, or stop the other pod. Containers of one pod must all mount it the same way.',
  });
}

function readOnlyRefusal(path: string, cause?: unknown): PodvmError {
  return new PodvmError('failedPrecondition', `Cannot attach ${path}: it is read-only`, {
    cause,
    fix: 'Mount it read-only.',
  });
}

/** The kernel's numbers in a `dev_t` as glibc has it (sys/sysmacros.h). */
function majorOf(device: number): number {
  return Number((BigInt(device) >> 8n) & 0xfffn) + Number((BigInt(device) >> 32n) & 0xfffff000n);
}

function minorOf(device: number): number {
  return Number(BigInt(device) & 0xffn) + Number((BigInt(device) >> 12n) & 0xffffff00n);
}
