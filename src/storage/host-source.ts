import type { Stats } from 'node:fs';
import { open, readFile, readlink, statfs, type FileHandle } from 'node:fs/promises';
import { messageOf, PodvmError } from '#base/errors.ts';

/** What is at a path of the host, held by a descriptor: whoever replaces the path later changes nothing of it. */
export interface HostSource extends AsyncDisposable {
  /** As the kernel has resolved it, symbolic links followed. */
  readonly path: string;
  readonly kind: 'directory' | 'file';
  /** Tells it from all others while it is held. */
  readonly identity: string;
  /** Of O_PATH: it only names what is there. */
  readonly fd: number;
  /** True when other file systems are mounted below. */
  hasSubmounts(): Promise<boolean>;
}

/** Linux's O_PATH, which Node does not name. */
const onlyPath = 0o10000000;

/** Kernel's magic numbers (include/uapi/linux/magic.h) of file systems whose files are no data. */
const kernelFileSystems: ReadonlyMap<number, string> = new Map([
  [0x9fa0, 'proc'],
  [0x6265_6572, 'sysfs'],
  [0x27e0eb, 'cgroup'],
  [0x6367_7270, 'cgroup2'],
  [0x6462_6720, 'debugfs'],
  [0x7472_6163, 'tracefs'],
  [0xcafe_4a11, 'bpf'],
]);
const kernelDirectories = ['/dev', '/proc', '/sys'];

/**
 * Errors: `notFound`; `unsupported` for what cannot be shared with a machine (sockets, devices, FIFOs, what is under
 * /dev, /proc and /sys); `failedPrecondition`.
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
    const kind = await kindOfSource(path, resolved, status, handle.fd);
    return {
      path: resolved,
      kind,
      identity: `${status.dev}:${status.ino} ${resolved}`,
      fd: handle.fd,
      hasSubmounts: async () => kind === 'directory' && hasMountsBelow(await mountPoints(), resolved),
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
    return new PodvmError('notFound', `Cannot share ${path}: there is no such file or directory on the host`, {
      cause,
      fix: 'Make it, or correct the path.',
    });
  }
  const why = code === 'ENOTDIR' ? 'a part of the path is no directory' : messageOf(cause);
  return new PodvmError('failedPrecondition', `Cannot share ${path}: ${why}`, { cause });
}

async function kindOfSource(path: string, resolved: string, status: Stats, fd: number): Promise<HostSource['kind']> {
  const refuse = (why: string) => new PodvmError('unsupported', `Cannot share ${path} with a pod's machine: ${why}`);
  if (status.isSocket()) throw refuse('it is a socket, whose other end is in another kernel');
  if (status.isFIFO()) throw refuse('it is a FIFO, whose other end is in another kernel');
  if (status.isCharacterDevice()) throw refuse("it is a device, which only the host's kernel has");
  if (status.isBlockDevice())
    throw refuse(
      'it is a block device: have it by volumeDevices, or name it in the annotation podvm.dev/block-volumes',
    );
  if (kernelDirectories.some((directory) => resolved === directory || resolved.startsWith(`${directory}/`))) {
    throw refuse("what is there belongs to the host's kernel, and the machine has its own");
  }
  const { type } = await statfs(`/proc/self/fd/${fd}`);
  const fileSystem = kernelFileSystems.get(type);
  if (fileSystem !== undefined) throw refuse(`it is on a ${fileSystem} file system, which only the host's kernel has`);
  if (status.isDirectory()) return 'directory';
  if (status.isFile()) return 'file';
  throw refuse('it is neither a directory nor a file');
}

/** Of our own mount namespace. */
async function mountPoints(): Promise<readonly string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).trimEnd().split('\n');
  return lines.map((line) => unescape(line.split(' ')[4] ?? ''));
}

/** proc(5): space, tab, newline and backslash are written as octal numbers. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function hasMountsBelow(points: readonly string[], path: string): boolean {
  const prefix = path === '/' ? '/' : `${path}/`;
  return points.some((point) => point !== path && point.startsWith(prefix));
}
