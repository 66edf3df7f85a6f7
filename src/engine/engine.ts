/**
 * What the guest's engine gives to the agent: the loop, and system calls. `engine.c` implements it in the guest; the file
 * server's build has the calls of `FileServerEngine` instead (src/file-server/service.ts). Services take the narrow interface they need (`files: Files`), so that a test can hand them a fake.
 *
 * Words: a *handler* is called by the loop, one at a time, and never re-entered; whatever it throws goes to `onError`
 * and the loop goes on. A *descriptor* is a file descriptor, always close-on-exec.
 * Errors: every call throws a `SystemError` for an errno, unless its line says otherwise. EINTR never shows.
 * EAGAIN never throws: `read`, `write`, `accept` and `receive` answer `again`.
 * Text in paths and arguments is UTF-8 and refused (`EINVAL`) with a NUL in it.
 */
export interface Engine
  extends
    Clock,
    Descriptors,
    Files,
    Beneath,
    Mounts,
    Namespaces,
    Processes,
    Asides,
    Sockets,
    Entropy,
    Text,
    Kernel,
    Runtime {}

/**
 * The errno name of a thrown value (`ENOENT`, `EPERM`; `E<number>` for a rare one), or `undefined` if it is no
 * `SystemError`: an `Error` with `code` and `errno`, which a failed system call throws.
 */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** The answer of a call that would have to wait: watch the descriptor and try again. */
export const again = -1;

export type Timer = number;

export interface Timers {
  /** Calls `handler` once, after `delayMs` (0 to 2^31). */
  setTimer(delayMs: number, handler: () => void): Timer;
  /** An unknown or fired timer is no error. */
  clearTimer(timer: Timer): void;
}

export interface Clock extends Timers {
  /** Since boot, without suspension; fractions of a `ms`. */
  monotonicMs(): number;
  /** Since the epoch, in `ms`. */
  realtimeMs(): number;
  setRealtimeMs(epochMs: number): void;
}

/** Bits of `watch`'s interest and of what its handler is told. */
export const ready = {
  readable: 1,
  writable: 2,
  /** The other end is gone (told always). Level-triggered: `unwatch`, or be called for ever. */
  hangup: 4,
  /** Told always. */
  error: 8,
  /** cgroup event files (`memory.events`, `cgroup.events`) and pseudo-files changed; told with `error` as well. */
  priority: 16,
} as const;

export type PipeEnd = 'read' | 'write' | 'both' | 'none';

export interface Descriptors {
  /** `flags` from `open` of `constants.ts`; add `open.nonBlock` for what you will watch. */
  open(path: string, flags: number, mode?: number): number;
  /** Unwatches as well. */
  close(fd: number): void;
  /** Bytes read into `buffer` at `offset` (default 0, `length` default the rest); 0: end; or `again`. */
  read(fd: number, buffer: Uint8Array, offset?: number, length?: number): number;
  /** Bytes written, maybe fewer than asked; or `again`. A reader that is gone is `EPIPE`. */
  write(fd: number, data: Uint8Array, offset?: number, length?: number): number;
  /**
   * Level-triggered. One handler per descriptor: a second call replaces interest and handler. Each ready descriptor
   * gets one call a turn, in rotation: read one buffer's worth and return, and nobody starves. `interest` 0 still
   * tells hangup and error. Regular files cannot be watched (`EPERM`).
   */
  watch(fd: number, interest: number, handler: (events: number) => void): void;
  /** Not watched is no error. No handler call comes after it, not even one that was already due. */
  unwatch(fd: number): void;
  /** `nonBlocking`: the ends that are ours to watch; a child's end must stay blocking. */
  pipe(nonBlocking: PipeEnd): { readonly read: number; readonly write: number };
  setNonBlocking(fd: number, nonBlocking: boolean): void;
  duplicate(fd: number): number;
  /** dup3; `target` (0 to 2 for the agent's own standard streams) stays open across exec. */
  duplicateTo(fd: number, target: number): void;
  /** Until the data is on the disk. Blocks. */
  flush(fd: number): void;
  seek(fd: number, offset: number): void;
  /** Non-blocking; what happens to the files that `watchFile` adds is read from it, as inotify(7) lays it out. */
  openInotify(): number;
  /** Tells of writes to a file and of its closing after them; a symlink is not followed. Returns its watch's number. */
  watchFile(inotify: number, path: string): number;
}

export type FileKind =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'characterDevice'
  | 'blockDevice'
  | 'fifo'
  | 'socket'
  | 'unknown';

export interface FileStatus {
  readonly kind: FileKind;
  /** Permission bits, 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** In `bytes`. */
  readonly size: number;
  readonly inode: number;
  /** Number of the device it is on; a mount point's differs from its parent's. */
  readonly device: number;
  /** Of a device file, else 0. */
  readonly major: number;
  readonly minor: number;
  /** Since the epoch. */
  readonly modifiedMs: number;
}

export interface FileSystemSpace {
  readonly totalBytes: number;
  /** For those who are not root. */
  readonly freeBytes: number;
  readonly totalInodes: number;
  readonly freeInodes: number;
}

export interface Files {
  /** All of it; `EFBIG` if there is more than `maxBytes`. Fit for /proc, /sys and cgroup files. */
  readFile(path: string, maxBytes: number): Uint8Array;
  /** The same as text; invalid UTF-8 becomes U+FFFD. */
  readText(path: string, maxBytes: number): string;
  /** Makes or empties the file, writes all; `mode` default 0o644, exactly (no umask). Not atomic: write, then rename. */
  writeFile(path: string, data: Uint8Array | string, mode?: number): void;
  /** One write to a file that exists: sysfs, procfs, cgroup. `ENOENT` if absent. */
  writeExisting(path: string, text: string): void;
  /** `EEXIST` if there. `mode` default 0o755, exactly. */
  makeDirectory(path: string, mode?: number): void;
  /** With its parents; there already is no error. */
  makeDirectories(path: string, mode?: number): void;
  removeFile(path: string): void;
  removeDirectory(path: string): void;
  /** Whatever it is, with all below; never follows a symlink nor leaves the file system (`EXDEV`); absent is no error. */
  removeTree(path: string): void;
  rename(from: string, to: string): void;
  /** `target` is the text of the link. */
  symlink(target: string, path: string): void;
  readLink(path: string): string;
  /** Follows a symlink. */
  changeMode(path: string, mode: number): void;
  /** Does not follow a symlink. -1: leave as it is. */
  changeOwner(path: string, uid: number, gid: number): void;
  /** Does not follow a symlink. `undefined` if it (or a parent) does not exist. */
  status(path: string): FileStatus | undefined;
  statusOf(fd: number): FileStatus;
  /** Names without `.` and `..`, in the directory's order; at most 65,536 (`EFBIG`). */
  list(path: string): string[];
  /** Space of the file system at `path`; of a directory with a project quota: of that project (ext4). */
  space(path: string): FileSystemSpace;
  /** Project id of a directory, inherited by what is made in it (FS_IOC_FSSETXATTR). */
  setProject(path: string, project: number): void;
  /** Hard limit of a project on the file system of that block device; 0: none. Needs the `prjquota` mount option. */
  setProjectQuota(device: string, project: number, limitBytes: number): void;
  /** What a project has on that file system, written or promised. Needs the `prjquota` mount option. */
  projectUse(device: string, project: number): { readonly bytes: number; readonly inodes: number };
}

/**
 * Calls for trees that a container may write to: `path` is resolved as if `root` (a directory's descriptor) were `/`
 * (openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS), so that neither `..` nor a symlink leads out.
 */
export interface Beneath {
  openBeneath(root: number, path: string, flags: number, mode?: number): number;
  /** mkdir -p; returns a descriptor of the last one (O_PATH), fit for `descriptorPath`. */
  makeDirectoriesBeneath(root: number, path: string, mode?: number): number;
}

/** A path that names what the descriptor names: as mount source or target without a race. */
export const descriptorPath = (fd: number): string => `/proc/self/fd/${fd}`;

export interface Mounts {
  /** `flags` from `mountFlags` of `constants.ts`. `type` and `data` may be empty. */
  mount(source: string, target: string, type: string, flags: number, data: string): void;
  /** `flags` from `unmountFlags`. */
  unmount(target: string, flags: number): void;
  /** Grows a mounted ext4 to so many bytes of its device, while it is in use. Less than it has is no error. */
  growExt4(path: string, sizeBytes: number): void;
  changeRoot(path: string): void;
  changeDirectory(path: string): void;
}

export interface Namespaces {
  /** Network, IPC and host name of a process become ours, and of what we start from now on. */
  enterNamespaces(pid: number): void;
  /**
   * Mounts the directory `source` once more, at `target`, with its owners as the user namespace of a process maps them:
   * what belongs to 0 belongs to that namespace's root. `EINVAL` for a file system that cannot (overlay).
   */
  mountMapped(source: string, target: string, pid: number): void;
  /** `writeExisting` with another effective user, and without capabilities. */
  writeExistingAs(path: string, text: string, uid: number): void;
}

export interface SpawnOptions {
  /** `argv[0]` is the program's path too, unless `programFd` is given. No PATH search. */
  readonly argv: readonly string[];
  /** Execute this descriptor (a sealed memfd) instead. */
  readonly programFd?: number;
  /** `NAME=value`. Nothing is inherited. */
  readonly env: readonly string[];
  readonly cwd?: string;
  /** The child's 0, 1, 2, ...; -1: /dev/null. Nothing else of the agent's stays open in it. They stay the caller's. */
  readonly fds: readonly number[];
  /** setsid. */
  readonly newSession?: boolean;
  /** The child's descriptor 0 becomes its controlling terminal (implies `newSession`). */
  readonly controllingTty?: boolean;
  /** Given together; supplementary groups are then `groups` (default none). */
  readonly uid?: number;
  readonly gid?: number;
  readonly groups?: readonly number[];
  /** Descriptor of a cgroup's directory (`open.directory`) in which the child starts. */
  readonly cgroupFd?: number;
  /** -1000 to 1000. */
  readonly oomScoreAdj?: number;
}

export interface ChildExit {
  readonly pid: number;
  /** Exit code; `undefined` when a signal killed it. */
  readonly code: number | undefined;
  readonly signal: number | undefined;
  /** The most it ever had resident, itself or one of its children. */
  readonly maxRssKiB: number;
}

export interface Processes {
  /**
   * Starts a program; returns its pid. Its exit comes to `onExit`, never before this returns. An exec that fails
   * throws (`ENOENT`, `EACCES`, `ENOEXEC`) and leaves nothing to reap.
   */
  spawn(options: SpawnOptions): number;
  /** One handler for every child that ends, orphans included (as PID 1 or subreaper). A later call replaces it. */
  onExit(handler: (exit: ChildExit) => void): void;
  /** pid below 0: a process group. `ESRCH` if gone; signal 0 only asks. */
  kill(pid: number, signal: number): void;
  /** A copy of the file in a memfd with all seals, for `programFd`. */
  sealedCopy(path: string): number;
  /**
   * A process that does nothing but reap, to hold namespaces. `ownPids`: it is the first process of a pid namespace;
   * killing it kills the namespace. With maps (user_namespaces(7)): it is root of a user namespace, to which new ones of
   * network, IPC and host name (and of pids) belong. Returns its pid.
   */
  spawnPause(ownPids: boolean, uidMap?: string, gidMap?: string): number;
  /** Orphans below us become ours, as for PID 1. */
  becomeSubreaper(): void;
  readonly pid: number;
}

/**
 * Calls that may take long, each in a process of its own while the loop goes on. They return its pid, or 0 while four are
 * under way. The exit code that `onExit` tells is the errno, 0 for success. `E2BIG`: the arguments have more than 4 KiB.
 */
export interface Asides {
  mountAside(source: string, target: string, type: string, flags: number, data: string): number;
  /** finit_module of a `.ko` without parameters. */
  loadModuleAside(path: string): number;
  /** Sends aligned netlink messages in turn and waits for each answer; the socket must stay open meanwhile. */
  netlinkAside(fd: number, requests: Uint8Array): number;
}

export interface Sockets {
  /** A listening, non-blocking unix stream socket; the file is made with `mode` (default 0o600). */
  listenUnix(path: string, mode?: number): number;
  /** A non-blocking connection, or `again`. */
  accept(fd: number): number;
  /** Bytes (0: end, `again`) and the descriptors sent along (SCM_RIGHTS, at most 16; they are yours to close). */
  receive(fd: number, buffer: Uint8Array): { readonly bytes: number; readonly fds: number[] };
  /**
   * Starts a non-blocking connection to an IPv4 or IPv6 address. Watch it for `ready.writable`, then ask
   * `socketError`. A connection refused at once throws.
   */
  connectTcp(address: string, port: number): number;
  /** The pending error (`ECONNREFUSED`) of a socket, cleared by asking; `undefined`: none. */
  socketError(fd: number): string | undefined;
  /** Ends our sending half; the peer reads an end. */
  shutdownWrite(fd: number): void;
  /** A non-blocking netlink socket; `read` and `write` are its messages. `groups` is the multicast mask. */
  openNetlink(family: 'route' | 'kobjectUevent', groups: number): number;
  interfaceIndex(name: string): number;
  setWindowSize(fd: number, columns: number, rows: number): void;
}

export interface Entropy {
  /** Mixes them in, credits `8 * length` bits and reseeds the kernel's generator. Needs CAP_SYS_ADMIN. */
  addEntropy(bytes: Uint8Array): void;
}

export interface Text {
  /** UTF-8; lone surrogates become U+FFFD. */
  encodeUtf8(text: string): Uint8Array;
  /** Lossy: invalid sequences become U+FFFD. */
  decodeUtf8(bytes: Uint8Array, offset?: number, length?: number): string;
  encodeBase64(bytes: Uint8Array): string;
  /** Standard alphabet; padding may be absent. Anything else: `EINVAL`. */
  decodeBase64(text: string): Uint8Array;
}

export interface Kernel {
  setHostname(name: string): void;
  /** finit_module of a `.ko`, or of a compressed one that the kernel unpacks; already loaded is no error. */
  loadModule(path: string, parameters: string): void;
  /** Writes everything dirty to the disks. Blocks. */
  sync(): void;
  /** At once, without sync. Does not return. */
  powerOff(): never;
  /** Soft and hard limit of open descriptors, ours and our children's. */
  setDescriptorLimit(count: number): void;
  /** Our own effective set, by a number of `constants.ts`; given up it can be taken again. Children are not concerned. */
  setCapability(capability: number, isEffective: boolean): void;
}

export interface MemoryUse {
  readonly residentKiB: number;
  /** What JavaScript has allocated, in `bytes`. */
  readonly heapBytes: number;
  /** Open descriptors. */
  readonly descriptors: number;
}

export interface Runtime {
  /** `quickjs 2025-04-26`. */
  readonly engineName: string;
  readonly args: readonly string[];
  memoryUse(): MemoryUse;
  collectGarbage(): void;
  /** A handler that runs longer is interrupted: an error that cannot be caught, told to `onError`. 0: never. */
  setWatchdog(ms: number): void;
  /** Exceptions that leave a handler, and rejections that nobody handled by the end of the turn. */
  onError(handler: (error: unknown) => void): void;
  /** To descriptor 2 (the console), one line, at most 1 KiB, control characters escaped. Never throws, never blocks. */
  print(line: string): void;
  /** Ends the process: for tests. As PID 1 this is `powerOff`. */
  exit(code: number): never;
}
