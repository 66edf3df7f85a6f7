/**
 * The calls of the guest's program: the loop, and system calls, which the C in this folder implements. The file server
 * has those of `FileServerEngine` (src/file-server/service.ts). Services take the narrow interface they need
 * (`files: Files`), so that a test can hand them a fake.
 *
 * Words: a *handler* is called by the loop, one at a time, and never re-entered. What it throws goes to `onError`, and
 * the loop continues. A *descriptor* is a file descriptor, always close-on-exec.
 * Errors: a call throws a `SystemError` for an errno, unless its comment says otherwise. EINTR is retried. EAGAIN does
 * not throw: `read`, `write`, `accept` and `receive` return `again`.
 * Text in paths and arguments is UTF-8; a NUL in it is refused (`EINVAL`).
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

/** Result of a call that would have to wait: watch the descriptor and try again. */
export const again = -1;

export type Timer = number;

export interface Timers {
  /** Calls `handler` once, after `delayMs` (0 to 2^31). */
  setTimer(delayMs: number, handler: () => void): Timer;
  /** Stops a timer. An unknown or fired timer is not an error. */
  clearTimer(timer: Timer): void;
}

export interface Clock extends Timers {
  /** Time since boot without suspension, in `ms` with fractions. */
  monotonicMs(): number;
  /** Time since the epoch, in `ms`. */
  realtimeMs(): number;
  setRealtimeMs(epochMs: number): void;
}

/** Bits of the interest given to `watch` and of the events given to its handler. */
export const ready = {
  readable: 1,
  writable: 2,
  /** The other end is gone. Always reported, each turn until `unwatch`, but see `changed`. */
  hangup: 4,
  /** Always reported. */
  error: 8,
  /** A cgroup event file (`memory.events`, `cgroup.events`) or pseudo-file changed; comes with `error`. */
  priority: 16,
  /** Only in an interest: reports a state once, and again when something has happened (edge-triggered). */
  changed: 32,
} as const;

export type PipeEnd = 'read' | 'write' | 'both' | 'none';

export interface Descriptors {
  /** Takes `flags` from `open` in `constants.ts`; add `open.nonBlock` for a descriptor to watch. */
  open(path: string, flags: number, mode?: number): number;
  /** Closes the descriptor and stops watching it. */
  close(fd: number): void;
  /** Reads into `buffer` at `offset` (default 0; `length`: the rest). Returns bytes, 0 at the end, or `again`. */
  read(fd: number, buffer: Uint8Array, offset?: number, length?: number): number;
  /** Returns the bytes written, perhaps fewer than requested, or `again`. Throws `EPIPE` if the reader is gone. */
  write(fd: number, data: Uint8Array, offset?: number, length?: number): number;
  /**
   * Calls the handler each turn while the descriptor is ready (level-triggered, without `changed`). A second call replaces
   * interest and handler. Each ready descriptor gets one call a turn: read one buffer and return, so that others get their turn.
   * `interest` 0 still reports hangup and error. Regular files cannot be watched (`EPERM`).
   */
  watch(fd: number, interest: number, handler: (events: number) => void): void;
  /** Stops watching, also a call that was already due. A descriptor that is not watched is not an error. */
  unwatch(fd: number): void;
  /** Makes a pipe. `nonBlocking` names the ends to watch; a child's end must stay blocking. One to be read holds 256 KiB. */
  pipe(nonBlocking: PipeEnd): { readonly read: number; readonly write: number };
  setNonBlocking(fd: number, nonBlocking: boolean): void;
  duplicate(fd: number): number;
  /** Replaces a standard stream (0 to 2), which stays open across exec. */
  duplicateTo(fd: number, target: number): void;
  /** Blocks until the data is on the disk. */
  flush(fd: number): void;
  seek(fd: number, offset: number): void;
  /** Makes a non-blocking descriptor; reading it returns the events of inotify(7) for files added with `watchFile`. */
  openInotify(): number;
  /** Reports writes to a file and its closing after them. Does not follow a symlink. Returns the watch's number. */
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
  /** Size in `bytes`. */
  readonly size: number;
  readonly inode: number;
  /** Number of the device that holds the file; at a mount point it differs from the parent's. */
  readonly device: number;
  /** Device number of a device file, else 0. */
  readonly major: number;
  readonly minor: number;
  /** Time since the epoch. */
  readonly modifiedMs: number;
}

export interface FileSystemSpace {
  readonly totalBytes: number;
  /** Space for users other than root. */
  readonly freeBytes: number;
  readonly totalInodes: number;
  readonly freeInodes: number;
}

export interface Files {
  /** Reads a whole file; `EFBIG` above `maxBytes`. Suits /proc, /sys and cgroup files. */
  readFile(path: string, maxBytes: number): Uint8Array;
  /** Reads a whole file as text; invalid UTF-8 becomes U+FFFD. */
  readText(path: string, maxBytes: number): string;
  /** Writes a whole file; `mode` (default 0o644) ignores the umask. Not atomic: write, then rename. */
  writeFile(path: string, data: Uint8Array | string, mode?: number): void;
  /** Makes one write to a file of sysfs, procfs or a cgroup, or to a FIFO. `ENOENT` if it is absent, `ENXIO` without a reader. */
  writeExisting(path: string, text: string): void;
  /** Makes a directory; `mode` (default 0o755) ignores the umask. `EEXIST` if it exists. */
  makeDirectory(path: string, mode?: number): void;
  /** Makes a directory and its parents. One that exists is not an error. */
  makeDirectories(path: string, mode?: number): void;
  removeFile(path: string): void;
  removeDirectory(path: string): void;
  /** Removes a file or tree, on one file system (`EXDEV`). Follows no symlink. An absent path is not an error. */
  removeTree(path: string): void;
  rename(from: string, to: string): void;
  /** Makes a symlink with the text `target`. */
  symlink(target: string, path: string): void;
  readLink(path: string): string;
  /** Follows a symlink. */
  changeMode(path: string, mode: number): void;
  /** Does not follow a symlink. -1 leaves the owner unchanged. */
  changeOwner(path: string, uid: number, gid: number): void;
  /** Does not follow a symlink. `undefined` if the path does not exist. */
  status(path: string): FileStatus | undefined;
  statusOf(fd: number): FileStatus;
  /** Lists names without `.` and `..`, in the directory's order; at most 65,536 (`EFBIG`). */
  list(path: string): string[];
  /** Space of the file system at `path`, or of the project of a directory with a project quota (ext4). */
  space(path: string): FileSystemSpace;
  /** Sets the project of a directory, which new files in it inherit (FS_IOC_FSSETXATTR). */
  setProject(path: string, project: number): void;
  /** Sets the hard limit of a project on a block device's file system; 0: none. Needs the mount option `prjquota`. */
  setProjectQuota(device: string, project: number, limitBytes: number): void;
  /** Space and inodes that a project uses or has reserved. Needs the mount option `prjquota`. */
  projectUse(device: string, project: number): { readonly bytes: number; readonly inodes: number };
}

/**
 * Calls for trees that a container may write to: `path` is resolved as if `root` (a directory's descriptor) were `/`
 * (openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS), so that neither `..` nor a symlink leads out.
 */
export interface Beneath {
  openBeneath(root: number, path: string, flags: number, mode?: number): number;
  /** Makes directories like mkdir -p. Returns an O_PATH descriptor of the last one, for `descriptorPath`. */
  makeDirectoriesBeneath(root: number, path: string, mode?: number): number;
}

/** Path of the file that a descriptor names: a mount source or target without a race. */
export const descriptorPath = (fd: number): string => `/proc/self/fd/${fd}`;

export interface Mounts {
  /** Takes `flags` from `mountFlags` in `constants.ts`. `type` and `data` may be empty. */
  mount(source: string, target: string, type: string, flags: number, data: string): void;
  /** Takes `flags` from `unmountFlags`. */
  unmount(target: string, flags: number): void;
  /** Grows a mounted ext4 to a size, while it is in use. A smaller size than it has is not an error. */
  growExt4(path: string, sizeBytes: number): void;
  changeRoot(path: string): void;
  changeDirectory(path: string): void;
}

export interface Namespaces {
  /** Opens a process: the descriptor names it also when another has its pid (pidfd). `ESRCH` if it is gone. */
  openProcess(pid: number): number;
  /** Enters the network, IPC and host name namespaces of a process, also for later children. */
  enterNamespaces(pid: number): void;
  /**
   * Mounts the directory `source` at `target` too, with owners mapped as in the user namespace of a process: files of
   * user 0 belong to that namespace's root. `EINVAL` for a file system that cannot do it (overlay).
   */
  mountMapped(source: string, target: string, pid: number): void;
  /** Writes like `writeExisting`, with another effective user and without capabilities. */
  writeExistingAs(path: string, text: string, uid: number): void;
}

export interface SpawnOptions {
  /** Arguments; `argv[0]` is also the program's path unless `programFd` is given. PATH is not searched. */
  readonly argv: readonly string[];
  /** Descriptor to execute instead (a sealed memfd). */
  readonly programFd?: number;
  /** Variables, `NAME=value`. None is inherited. */
  readonly env: readonly string[];
  readonly cwd?: string;
  /** The child's descriptors 0, 1, 2 and so on; -1: /dev/null. It gets no others. The caller keeps its own. */
  readonly fds: readonly number[];
  /** Starts a session (setsid). */
  readonly newSession?: boolean;
  /** User; given together with `gid`. Supplementary groups are then `groups` (default none). */
  readonly uid?: number;
  readonly gid?: number;
  readonly groups?: readonly number[];
  /** Value from -1000 to 1000. */
  readonly oomScoreAdj?: number;
}

export interface ChildExit {
  readonly pid: number;
  /** Exit code; `undefined` when a signal killed it. */
  readonly code: number | undefined;
  readonly signal: number | undefined;
  /** Highest resident size of the process or one of its children. */
  readonly maxRssKiB: number;
}

export interface Processes {
  /**
   * Starts a program and returns its pid. `onExit` reports its exit after this call has returned. A failing exec throws
   * (`ENOENT`, `EACCES`, `ENOEXEC`) and leaves nothing to reap.
   */
  spawn(options: SpawnOptions): number;
  /** Sets the handler for every child that ends, orphans included (as PID 1 or subreaper). */
  onExit(handler: (exit: ChildExit) => void): void;
  /** Sends a signal; a pid below 0 names a process group. `ESRCH` if it is gone. Signal 0 only checks. */
  kill(pid: number, signal: number): void;
  /** Copies a file into a memfd with all seals, for `programFd`. */
  sealedCopy(path: string): number;
  /**
   * Starts a process that only reaps, to hold namespaces, and returns its pid. With `ownPids` it is the first process
   * of a pid namespace, which ends with it. With maps (user_namespaces(7)) it is root of a user namespace that owns
   * new namespaces of network, IPC and host name (and of pids).
   */
  spawnPause(ownPids: boolean, uidMap?: string, gidMap?: string): number;
  /** Makes orphaned descendants children of this process, as for PID 1. */
  becomeSubreaper(): void;
  readonly pid: number;
}

/**
 * Calls that may take long, each in a process of its own while the loop goes on. They return its pid, or 0 while four
 * are under way. The exit code that `onExit` tells is the errno, 0 for success. `E2BIG`: the arguments have more than
 * 4 KiB.
 */
export interface Asides {
  mountAside(source: string, target: string, type: string, flags: number, data: string): number;
  /** finit_module of a `.ko` without parameters. */
  loadModuleAside(path: string): number;
  /**
   * Sends aligned netlink messages in turn and waits for each answer; the socket must stay open until that process
   * exits.
   */
  netlinkAside(fd: number, requests: Uint8Array): number;
}

export interface Sockets {
  /** Makes a listening, non-blocking unix stream socket; its file has `mode` (default 0o600). */
  listenUnix(path: string, mode?: number): number;
  /** Returns a non-blocking connection, or `again`. */
  accept(fd: number): number;
  /** Makes two sockets that are connected with each other and keep the bounds of messages; `receive` does not block. */
  socketPair(): [number, number];
  /** Sends a byte with up to 16 descriptors, without waiting (`EAGAIN`). `EPIPE` if the other end is gone. */
  sendDescriptors(fd: number, descriptors: readonly number[]): void;
  /** Returns bytes (0 at the end, or `again`) and up to 16 sent descriptors (SCM_RIGHTS), for the caller to close. */
  receive(fd: number, buffer: Uint8Array): { readonly bytes: number; readonly fds: number[] };
  /**
   * Starts a non-blocking connection to an IPv4 or IPv6 address. Watch it for `ready.writable`, then call
   * `socketError`. A connection refused at once throws.
   */
  connectTcp(address: string, port: number): number;
  /** Makes a non-blocking UDP socket that is connected to an IPv4 or IPv6 address. A network without a route throws. */
  connectUdp(address: string, port: number): number;
  /** Returns and clears the pending error of a socket (`ECONNREFUSED`), or `undefined`. */
  socketError(fd: number): string | undefined;
  /** Ends the sending half; the peer reads an end. */
  shutdownWrite(fd: number): void;
  /** Makes a non-blocking netlink socket; `read` and `write` move messages. `groups` is the multicast mask. */
  openNetlink(family: 'route' | 'kobjectUevent', groups: number): number;
  interfaceIndex(name: string): number;
  setWindowSize(fd: number, columns: number, rows: number): void;
}

export interface Entropy {
  /** Mixes bytes into the kernel's generator, credits `8 * length` bits and reseeds it. Needs CAP_SYS_ADMIN. */
  addEntropy(bytes: Uint8Array): void;
}

export interface Text {
  /** Encodes text as UTF-8; lone surrogates become U+FFFD. */
  encodeUtf8(text: string): Uint8Array;
  /** Decodes UTF-8; invalid sequences become U+FFFD. */
  decodeUtf8(bytes: Uint8Array, offset?: number, length?: number): string;
  encodeBase64(bytes: Uint8Array): string;
  /** Decodes the standard alphabet, padded or not. Throws `EINVAL` for other text. */
  decodeBase64(text: string): Uint8Array;
}

export interface Kernel {
  setHostname(name: string): void;
  /** Loads a `.ko`, or a compressed one that the kernel unpacks. A loaded module is not an error. */
  loadModule(path: string, parameters: string): void;
  /** Blocks until all dirty data is on the disks. */
  sync(): void;
  /** Powers off without sync. Does not return. */
  powerOff(): never;
  /** Sets the soft and hard limit of open descriptors, for this process and later children. */
  setDescriptorLimit(count: number): void;
  /** Sets or clears a capability (a number of `constants.ts`) in the effective set of this process only. */
  setCapability(capability: number, isEffective: boolean): void;
  /** Loads a program of the type BPF_PROG_TYPE_CGROUP_DEVICE. Returns its descriptor. */
  loadDeviceProgram(instructions: Uint8Array): number;
  /** Lets a program decide, beside others, about the devices of a cgroup and those below it. `cgroup`: a directory. */
  attachDeviceProgram(program: number, cgroup: string): void;
}

export interface MemoryUse {
  readonly residentKiB: number;
  /** Memory that JavaScript has allocated, in `bytes`. */
  readonly heapBytes: number;
  /** Number of open descriptors. */
  readonly descriptors: number;
}

export interface Runtime {
  /** Name and version: `quickjs 2025-04-26`. */
  readonly engineName: string;
  readonly args: readonly string[];
  memoryUse(): MemoryUse;
  collectGarbage(): void;
  /**
   * Interrupts a handler after `looks` times 10,000 calls and turns of loops; 0: never. Counts no time, because a guest's
   * clock also runs while its machine gets no processor. No `catch` or `finally` of a function gets the error, only
   * `onError`, or a handler of an interrupted asynchronous function's promise.
   */
  setWatchdog(looks: number): void;
  /** Receives exceptions that leave a handler, and rejections that are unhandled at the end of a turn. */
  onError(handler: (error: unknown) => void): void;
  /** Writes a line to descriptor 2 (the console): at most 1 KiB, control characters escaped. Never throws or blocks. */
  print(line: string): void;
  /** Ends the process. As PID 1, powers off. */
  exit(code: number): never;
}
