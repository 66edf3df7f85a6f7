import { totalmem } from 'node:os';
import { open, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { makeJobCgroup } from '#host/cgroup/job-cgroup.ts';
import { run, tailOf } from '#host/process/run.ts';
import { killedHelper } from '../import/killed-helper.ts';
import { rootfsFile } from '../import/content-file.ts';
import { readerCalls } from '../jail-calls.ts';
import type { ImageLimits } from '../limits.ts';

export interface FlattenLayersOptions {
  /** Directory of extracted packages that holds `mkfs.erofs`. */
  readonly sysroot: string;
  /** Empty directory for the work; the file is made in it. */
  readonly work: string;
  readonly limits: ImageLimits;
  readonly signal: AbortSignal;
}

/** Room for the output of mkfs.erofs besides the content of files, in bytes. */
const fileRoomBytes = 4 * 1024 ** 3;
const memoryPart = 0.5;
const cpuShares = 256;
const maxProcesses = 64;
/** Limit of the list of directories: the options of a mount are one page, and some of it is for other options. */
const maxOptionBytes = 4000;
const failing = 'Cannot flatten the snapshot';

/**
 * Makes one read-only EROFS file of the layers of an overlay, topmost first, and returns its path. All layers are
 * directories, or EROFS files. The kernel merges them, in a mount namespace that ends with the program, so that no mount
 * is left if a process is killed. The program that reads the files has no right but that of reading them. Errors:
 * `invalid` (paths), `exhausted`, `unavailable`, `failedPrecondition` (the kernel refuses the overlay), `cancelled`.
 */
export async function flattenLayers(
  layers: readonly string[],
  { sysroot, work, limits, signal }: FlattenLayersOptions,
): Promise<string> {
  const files = await filesOf(layers);
  const mountedAt = join(work, 'layers');
  const directories = files.length === 0 ? layers : files.map((_, at) => join(mountedAt, String(at)));
  const base = files.length === 0 ? commonParent(layers) : mountedAt;
  // An overlay that only reads needs two directories; the second may be empty.
  const empty = join(work, 'empty');
  const lower = [...directories.map((path) => relative(base, path)), empty].join(':');
  checkLower(directories, lower);
  const memoryBytes = Math.min(limits.maxImportMemoryBytes, Math.floor(totalmem() * memoryPart));
  await using cgroup = await makeJobCgroup('flatten', { memoryBytes, cpuShares, processes: maxProcesses }).catch(
    () => undefined, // on a host without cgroups, the other limits still apply
  );
  const jail = jailedMkfs({ sysroot, work, maxFileBytes: limits.maxImageBytes + fileRoomBytes });
  const command = [...(cgroup?.enter ?? []), 'unshare', '--mount', '--propagation', 'slave', '--'];
  const [program = '', ...args] = [
    ...command,
    'sh',
    '-euc',
    mounting,
    'sh',
    work,
    base,
    lower,
    `${files.length}`,
    ...files,
    ...jail,
  ];
  const { code, stderr } = await run(program, args, {
    signal,
    timeoutMs: limits.maxImportMs,
    okCodes: 'any',
    inherited: [readerCalls()],
  });
  if (code !== 0) throw await failureOf(code, stderr, cgroup);
  const path = join(work, 'out', rootfsFile);
  await using file = await open(path, 'r');
  await file.chmod(0o444);
  await file.sync();
  return path;
}

/**
 * Mounts the layers that are files, and the overlay, by paths relative to the directories' parent because their list must be
 * short. Loop devices end with their mounts.
 */
const mounting = `
  work=$1 base=$2 lower=$3 files=$4; shift 4
  mkdir "$work/empty" "$work/tree" "$work/out" "$work/layers"
  at=0
  while [ "$at" -lt "$files" ]; do
    mkdir "$work/layers/$at"
    mount -t erofs -o ro,loop,nodev,nosuid "$1" "$work/layers/$at"
    at=$((at + 1)); shift
  done
  cd "$base"
  mount -t overlay overlay -o "ro,lowerdir=$lower" "$work/tree"
  cd /
  exec "$@"
`;

interface Jail {
  readonly sysroot: string;
  readonly work: string;
  readonly maxFileBytes: number;
}

/**
 * Returns the command of mkfs.erofs as root without any capability but that of reading every file, and without a
 * network, in namespaces of its own.
 */
function jailedMkfs({ sysroot, work, maxFileBytes }: Jail): readonly string[] {
  return [
    ...['prlimit', '--core=0', `--fsize=${maxFileBytes}`, '--', 'choom', '-n', '1000', '--'],
    ...['bwrap', '--unshare-ipc', '--unshare-net', '--unshare-pid', '--unshare-uts', '--unshare-cgroup-try'],
    ...['--new-session', '--die-with-parent', '--clearenv', '--cap-drop', 'ALL', '--cap-add', 'CAP_DAC_READ_SEARCH'],
    ...['--ro-bind', join(sysroot, 'usr'), '/sysroot/usr', '--ro-bind', join(work, 'tree'), '/tree'],
    ...['--bind', join(work, 'out'), '/out', '--tmpfs', '/tmp', '--remount-ro', '/', '--chdir', '/out'],
    ...['--seccomp', '3', '--', ...mkfsErofs('/sysroot'), rootfsFile, '/tree'],
  ];
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

/** Returns the layers if they are files. Errors: `invalid` (files beside directories). */
async function filesOf(layers: readonly string[]): Promise<readonly string[]> {
  const kinds = await Promise.all(layers.map(async (path) => (await stat(path)).isFile()));
  if (!kinds.includes(true)) return [];
  if (!kinds.includes(false)) return layers;
  throw new PodvmError('invalid', `${failing}: some of its layers are files, and some are directories`);
}

/** Returns the directory that contains all of them. */
function commonParent(directories: readonly string[]): string {
  let parent = dirname(directories[0] ?? '/');
  while (!directories.every((path) => path.startsWith(`${parent === '/' ? '' : parent}/`))) parent = dirname(parent);
  return parent;
}

function checkLower(directories: readonly string[], lower: string): void {
  const odd = directories.find((path) => /[:,\\"]/.test(path));
  if (odd !== undefined) {
    throw new PodvmError('invalid', `${failing}: a colon, comma, quote or backslash in ${printable(odd)}`, {
      fix: "Move containerd's root to a directory whose name has none of them.",
    });
  }
  if (Buffer.byteLength(lower) <= maxOptionBytes) return;
  throw new PodvmError('exhausted', `${failing}: its ${directories.length} layers are too many for one mount`, {
    fix: 'Use an image with fewer layers.',
  });
}

async function failureOf(
  code: number,
  said: string,
  cgroup: { wasOutOfMemory(): Promise<boolean> } | undefined,
): Promise<PodvmError> {
  const details = { tail: tailOf(said) };
  if ((await cgroup?.wasOutOfMemory()) === true) {
    return new PodvmError('exhausted', `${failing}: it needs more memory than its limit`, {
      ...details,
      fix: 'Use an image with fewer files.',
    });
  }
  if (/No space left|Disk quota exceeded|File too large/.test(said)) {
    return new PodvmError('exhausted', `${failing}: the disk is full`, { ...details, fix: 'Free some space.' });
  }
  if (/^mount: /m.test(said)) {
    return new PodvmError('failedPrecondition', `${failing}: the kernel cannot mount its directories as an overlay`, {
      ...details,
      fix: 'Use the overlayfs snapshotter of containerd, and see the end of `dmesg`.',
    });
  }
  return (
    killedHelper('flatten the snapshot', 'mkfs.erofs', code, said) ??
    new PodvmError('internal', `${failing}: mkfs.erofs ended with ${code}`, details)
  );
}
