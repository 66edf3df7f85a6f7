import type { Stats } from 'node:fs';
import { open, readFile, readlink, statfs, type FileHandle } from 'node:fs/promises';
import { messageOf, PodvmError } from '#base/errors.ts';
import { holdsData, kernelDevicesOf, nameOfFileSystem } from '#base/file-systems.ts';
import { type HostMount, isBelow, parseMountInfo } from '#base/mount-table.ts';
import { podAnnotations } from '#base/pod-annotations.ts';

/** A file or directory of the host, held by a descriptor: replacing the path later has no effect. */
export interface HostSource extends AsyncDisposable {
  /** Path with symbolic links resolved by the kernel. */
  readonly path: string;
  readonly kind: 'directory' | 'file';
  /** Identifies the source uniquely while it is held. */
  readonly identity: string;
  /** Opened with O_PATH: only names the source. */
  readonly fd: number;
  /** Device numbers (`MAJOR:MINOR`) of file systems that are refused regardless of their type. */
  readonly kernelDevices: ReadonlySet<string>;
  /** True when other file systems are mounted below the source. */
  hasSubmounts(): Promise<boolean>;
}

/** Linux's O_PATH, which Node does not name. */
const onlyPath = 0o10000000;

const kernelDirectories = ['/dev', '/proc', '/sys'];

/**
 * Opens a source. Errors: `notFound`; `unsupported` for what cannot be shared with a machine (sockets, devices, FIFOs,
 * anything below /dev, /proc and /sys); `failedPrecondition`.
 */
export async function openHostSource(path: string): Promise<HostSource> {
  let handle: FileHandle;
  try {
    handle = await open(path, onlyPath);
  } catch (cause) {
    throw cannotOpen(path, cause);
  }
  try {
    const resolved = await readlink(`/proc/self/fd/${handle.fd}`);
    const status = await handle.stat();
    const mounts = await readMounts();
    const kind = await kindOfSource(path, { resolved, status, fd: handle.fd, mounts });
    return {
      path: resolved,
      kind,
      identity: `${status.dev}:${status.ino} ${resolved}`,
      fd: handle.fd,
      kernelDevices: kernelDevicesOf(mounts),
      hasSubmounts: async () =>
        kind === 'directory' && (await readMounts()).some(({ point }) => isBelow(point, resolved)),
      [Symbol.asyncDispose]: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function cannotOpen(path: string, cause: unknown): PodvmError {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') {
    return new PodvmError('notFound', `Cannot share ${path}: no such file or directory on the host`, {
      cause,
      fix: 'Create it, or correct the path of the volume.',
    });
  }
  const why = code === 'ENOTDIR' ? 'a component of the path is not a directory' : messageOf(cause);
  return new PodvmError('failedPrecondition', `Cannot share ${path}: ${why}`, {
    cause,
    fix: 'Correct the path of the volume, or repair what is there.',
  });
}

interface Found {
  readonly resolved: string;
  readonly status: Stats;
  readonly fd: number;
  readonly mounts: readonly HostMount[];
}

const overNetwork = 'Let the pod reach that program over the network.';

async function kindOfSource(path: string, { resolved, status, fd, mounts }: Found): Promise<HostSource['kind']> {
  const refuse = (why: string, fix = 'Leave the volume out: the machine has devices and kernel files of its own.') =>
    new PodvmError('unsupported', `Cannot share ${path} with a pod's machine: ${why}`, { fix });
  if (status.isSocket()) throw refuse('it is a socket, and its other end is in the host’s kernel', overNetwork);
  if (status.isFIFO()) throw refuse('it is a FIFO, and its other end is in the host’s kernel', overNetwork);
  if (status.isCharacterDevice()) throw refuse("it is a character device of the host's kernel");
  if (status.isBlockDevice())
    throw refuse(
      `it is a block device: use volumeDevices or the annotation ${podAnnotations.blockVolumes.name}`,
      'Mount it by one of these.',
    );
  if (kernelDirectories.some((directory) => resolved === directory || resolved.startsWith(`${directory}/`))) {
    throw refuse("it belongs to the host's kernel, and the machine has its own");
  }
  const type = (await statfs(`/proc/self/fd/${fd}`)).type >>> 0;
  if (!holdsData({ type, device: deviceOf(status) }, kernelDevicesOf(mounts))) {
    throw refuse(`its file system type ${nameOfFileSystem(type)} belongs to the host's kernel`);
  }
  if (status.isDirectory()) return 'directory';
  if (status.isFile()) return 'file';
  throw refuse('it is neither a directory nor a regular file', 'Correct the path of the volume.');
}

/** Reads the mounts of our own mount namespace. */
const readMounts = async (): Promise<readonly HostMount[]> =>
  parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));

/** Formats a device number as the kernel's 64-bit dev_t (makedev(3)). */
function deviceOf({ dev }: Stats): string {
  const number = BigInt(dev);
  const major = ((number >> 32n) & 0xffff_f000n) | ((number >> 8n) & 0xfffn);
  const minor = ((number >> 12n) & 0xffff_ff00n) | (number & 0xffn);
  return `${major}:${minor}`;
}
