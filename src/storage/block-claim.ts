import { once } from 'node:events';
import { constants } from 'node:fs';
import { open, readFile, stat, type FileHandle } from 'node:fs/promises';
import { kindOf, PodvmError } from '#base/errors.ts';
import { lockFile } from '#host/file/file-lock.ts';
import { isInside } from '#host/inside-namespaces.ts';
import { identify, isRunning, killProcess, type ProcessIdentity } from '#host/process/process-identity.ts';
import { retry } from '#host/wait.ts';
import { run } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';

/**
 * A *claim* is the exclusive right of one machine to a block device of the node, or to an image file through a loop
 * device. Two machines, or a machine and the host, would destroy a file system that they both write. The kernel
 * enforces the claim: the device is open with O_EXCL, which excludes mounts and other exclusive users; an image file is
 * also locked (flock), since each of its loop devices is separate. A claim lasts as long as the VMM, also when this
 * process ends: a *keeper* process, which ends with the VMM, holds the same descriptors.
 */
export interface BlockClaim extends AsyncDisposable {
  readonly device: { readonly major: number; readonly minor: number };
  /** Record from which the next process takes the claim over. */
  readonly record: BlockClaimRecord;
  /** Returns the device's size in bytes. The device of an image file that has grown is resized first. */
  measure(signal: AbortSignal): Promise<number>;
}

/** A claim as recorded for the next process; plain JSON. */
export interface BlockClaimRecord {
  readonly path: string;
  readonly readOnly: boolean;
  readonly device: BlockClaim['device'];
  /** For an image: its loop device, and the identity of the file. */
  readonly image?: { readonly loop: string; readonly identity: string };
  readonly keeper: ProcessIdentity;
}

export interface BlockClaimRequest {
  /** Path of a block device or a raw image file; symbolic links are followed. */
  readonly path: string;
  readonly readOnly: boolean;
  /** Pid of the VMM. Its end ends the claim if this process is gone by then. */
  readonly vmmPid: number;
}

/** The kind of source at a path. Two paths with the same `key` are the same source. */
export interface BlockSource {
  readonly kind: 'device' | 'image';
  readonly key: string;
}

/** Identifies the source. Errors: `notFound`, `unsupported` for anything but a block device or a regular file. */
export async function findBlockSource(path: string): Promise<BlockSource> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot attach ${path}: no such file or device`, {
      cause,
      fix: 'Correct the path of the volume.',
    });
  });
  if (found.isBlockDevice()) return { kind: 'device', key: `device ${found.rdev}` };
  if (found.isFile()) return { kind: 'image', key: `image ${found.dev}:${found.ino}` };
  throw new PodvmError('unsupported', `Cannot attach ${path}: it is neither a block device nor an image file`, {
    fix: found.isDirectory()
      ? 'Unmount the file system on the host and specify its device.'
      : 'Correct the path of the volume.',
  });
}

/**
 * Claims a device or image. Errors: `busy` when the host or another machine uses it, `failedPrecondition` (read-only,
 * no loop devices, an image size that is not a multiple of sectors), those of `findBlockSource`. Nothing is held after
 * an error.
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
 * Time to wait for a device that is still in use, in `ms`. After a kill the keeper may hold it briefly; after an
 * unmount a jail that was being built may hold a copy of the mount.
 */
const patienceMs = 1500;
const pollMs = 100;
const keeperPollSeconds = 0.2;

async function claimNow(request: BlockClaimRequest, signal: AbortSignal): Promise<BlockClaim> {
  const { kind } = await findBlockSource(request.path);
  if (isInside) {
    throw new PodvmError('unsupported', `Cannot attach ${request.path}: only root can give a pod a disk of the host`, {
      fix: 'Share a directory instead, or run the pod as root.',
    });
  }
  await using held = new AsyncDisposableStack();
  const image = kind === 'image' ? held.use(await openImage(request, signal)) : undefined;
  const loop = image === undefined ? undefined : await attachLoop(request, image, signal);
  const devicePath = loop ?? request.path;
  let device: FileHandle;
  try {
    device = held.use(await openExclusively(request, devicePath));
  } finally {
    // The kernel detaches an open loop device when its last user closes it.
    if (loop !== undefined) await run('losetup', ['--detach', loop]);
  }
  const { rdev } = await device.stat();
  const keeper = held.use(await startKeeper(request.vmmPid, image === undefined ? [device] : [device, image]));
  const { path, readOnly } = request;
  const record: BlockClaimRecord = {
    path,
    readOnly,
    device: { major: majorOf(rdev), minor: minorOf(rdev) },
    ...(image === undefined || loop === undefined ? {} : { image: { loop, identity: await identityOf(image) } }),
    keeper: keeper.identity,
  };
  const imageBytes = (await image?.stat())?.size;
  return claimOf(record, { device, image, imageBytes }, held.move());
}

/**
 * Takes over a claim of an earlier process, which its keeper still holds. Errors: `unavailable` when the keeper has
 * ended, or when the path leads to something else.
 */
export async function adoptBlockClaim(record: BlockClaimRecord): Promise<BlockClaim> {
  const { path, readOnly, device: wanted, image: wantedImage, keeper } = record;
  const gone = (why: string) => new PodvmError('unavailable', `Cannot take over ${path}: ${why}`);
  if (!(await isRunning(keeper))) throw gone('the process that held it has ended');
  await using held = new AsyncDisposableStack();
  let isTakenOver = false; // until then the keeper is left to end with the VMM
  held.defer(() => (isTakenOver ? killProcess(keeper) : undefined));
  // Opens without O_EXCL, which the keeper has until it ends, last.
  const device = held.use(await open(wantedImage?.loop ?? path, readOnly ? constants.O_RDONLY : constants.O_RDWR));
  const { rdev } = await device.stat();
  if (majorOf(rdev) !== wanted.major || minorOf(rdev) !== wanted.minor)
    throw gone('the path now leads to another device');
  const image = wantedImage === undefined ? undefined : held.use(await open(path, constants.O_RDONLY));
  if (image !== undefined && (await identityOf(image)) !== wantedImage?.identity) throw gone('it has been replaced');
  isTakenOver = true;
  return claimOf(record, { device, image, imageBytes: undefined }, held.move());
}

const identityOf = async (file: FileHandle): Promise<string> => {
  const { dev, ino } = await file.stat();
  return `${dev}:${ino}`;
};

interface Claimed {
  readonly device: FileHandle;
  readonly image: FileHandle | undefined;
  /** Size that the loop device has; undefined: not known. */
  readonly imageBytes: number | undefined;
}

function claimOf(record: BlockClaimRecord, claimed: Claimed, owned: AsyncDisposableStack): BlockClaim {
  const { device, image } = claimed;
  let { imageBytes } = claimed;
  if (!record.readOnly) owned.defer(() => device.sync()); // undone first, so that all writes of the VMM are on the disk
  return {
    device: record.device,
    record,
    async measure(measuring) {
      const now = (await image?.stat())?.size;
      if (record.image !== undefined && now !== imageBytes) {
        await run('losetup', ['--set-capacity', record.image.loop], { signal: measuring });
        imageBytes = now;
      }
      return await sizeOf(record.device);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const sectorBytes = 512;

/** Reads the size from sysfs, whose unit is 512-byte sectors for every device. */
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
    throw new PodvmError('failedPrecondition', `Cannot attach ${path}: it cannot be opened, got ${code}`, {
      cause,
      fix: 'See whether the device works on the host, such as with `blockdev --report`.',
    });
  }
}

async function openImage(request: BlockClaimRequest, signal: AbortSignal): Promise<FileHandle> {
  const { path, readOnly } = request;
  await using held = new AsyncDisposableStack();
  let file: FileHandle;
  try {
    file = held.use(await open(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK));
  } catch (cause) {
    throw new PodvmError('failedPrecondition', `Cannot attach ${path}: it cannot be opened`, {
      cause,
      fix: 'Check the permissions of the path.',
    });
  }
  const { size } = await file.stat();
  if (size === 0 || size % sectorBytes !== 0) {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot attach ${path}: its size must be a multiple of ${sectorBytes} bytes, got ${size}`,
      { fix: `Enlarge the file to a multiple, such as by \`truncate --size %${sectorBytes} ${path}\`.` },
    );
  }
  if (!(await lockFile(file))) throw inUse(path);
  const { stdout } = await run('losetup', ['--noheadings', '--output', 'NAME', '--associated', path], { signal });
  const [other] = stdout.split('\n');
  if (other !== undefined && other !== '') throw inUse(path, undefined, `the host has it as ${other.trim()}`);
  held.move();
  return file;
}

/** Attaches a loop device with direct I/O, which avoids caching the file's pages twice. */
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
    throw new PodvmError('busy', `Cannot attach ${path}: the file was replaced during the attachment`, {
      fix: 'Start the pod again.',
    });
  } catch (cause) {
    if (cause instanceof PodvmError && cause.kind !== 'internal') throw cause;
    throw new PodvmError('failedPrecondition', `Cannot attach ${path}: the host has no loop device`, {
      cause,
      fix: 'Load the kernel module: `modprobe loop`.',
    });
  }
}

/** Starts coreutils' tail only because it ends with a given process (`--pid`). */
async function startKeeper(
  vmmPid: number,
  handles: readonly FileHandle[],
): Promise<AsyncDisposable & { readonly identity: ProcessIdentity }> {
  const args = ['-f', '/dev/null', `--pid=${vmmPid}`, `--sleep-interval=${keeperPollSeconds}`];
  const child = await startChild('tail', args, {
    failing: 'Cannot attach a block volume: cannot run tail',
    detached: true, // must outlive this process and receive no signals of its terminal
    stdio: ['ignore', 'ignore', 'ignore', ...handles.map(({ fd }) => fd)],
  });
  const ended = once(child, 'exit');
  child.unref();
  const pid = child.pid ?? 0;
  return {
    identity: (await identify(pid)) ?? { pid, startTicks: '' },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

function inUse(path: string, cause?: unknown, who = 'it is in use by the host or another machine'): PodvmError {
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

/** Returns the major number of a `dev_t` as glibc encodes it (sys/sysmacros.h). */
function majorOf(device: number): number {
  return Number((BigInt(device) >> 8n) & 0xfffn) + Number((BigInt(device) >> 32n) & 0xfffff000n);
}

function minorOf(device: number): number {
  return Number(BigInt(device) & 0xffn) + Number((BigInt(device) >> 12n) & 0xffffff00n);
}
