import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { VolumeParams } from '#wire/messages.ts';
import { openPort } from '../boot/port.ts';
import type { Children } from '../container/children.ts';
import { open, signals } from '#engine/constants.ts';
import type { ChildExit, Clock, Descriptors, Files, Processes } from '#engine/engine.ts';

export interface SharesParts {
  readonly engine: Clock & Descriptors & Files & Processes;
  readonly children: Children;
  readonly loadModule: (name: string) => boolean;
  readonly warn: (text: string) => void;
}

interface Share {
  readonly path: string;
  /** Of the process that carries bytes between port and file system; undefined once it has ended. */
  pumpPid: number | undefined;
}

const sharesRoot = '/run/podvm/shares';
const portTimeoutMs = 10_000;
/** A file server answers in milliseconds, its disk or network perhaps not at all. */
const mountTimeoutMs = 20_000;

/** Errno numbers by which mount(2) and umount(2) say what a caller can do something about. */
const errnos: Readonly<Record<number, string>> = {
  2: 'ENOENT',
  5: 'EIO',
  16: 'EBUSY',
  19: 'ENODEV',
  104: 'ECONNRESET',
};

/**
 * Directories of the host, as 9p file systems whose server is behind a virtio-serial port of their own. What waits for
 * the host is done by processes (`engine/shares.c`): the agent itself never does.
 */
export class Shares {
  readonly #parts: SharesParts;
  readonly #shares = new Map<string, Share>();

  constructor(parts: SharesParts) {
    this.#parts = parts;
  }

  /** Where the volume is mounted; undefined: it is none of these. */
  path(name: string): string | undefined {
    return this.#shares.get(name)?.path;
  }

  /** Loads the drivers; loaded already is no error. */
  prepare(): void {
    for (const module of ['9pnet_fd', '9p']) this.#parts.loadModule(module);
  }

  /** Errors: `invalid`, `alreadyExists`, `timeout` (port, file server), `unavailable` (the server is gone). */
  async attach({ name, port, exported }: VolumeParams): Promise<void> {
    const { engine, children } = this.#parts;
    if (port === undefined || exported === undefined || /[,\s]/.test(exported)) {
      throw new PodvmError('invalid', `Cannot create volume ${name}: a share needs a port and what it exports`);
    }
    if (this.#shares.has(name)) throw new PodvmError('alreadyExists', `Cannot create volume ${name}: it exists`);
    this.prepare();
    const portFd = await openPort(engine, port, portTimeoutMs).catch((cause: unknown) => {
      throw new PodvmError('timeout', `Cannot create volume ${name}: its port does not appear`, { cause });
    });
    const path = `${sharesRoot}/${name}`;
    const { first, second } = engine.socketPair(false);
    const share: Share = { path, pumpPid: undefined };
    try {
      engine.makeDirectories(path);
      const pumpPid = this.#spawn('podvm-pump', [], [portFd, first]);
      share.pumpPid = pumpPid;
      children.onExit(pumpPid, () => {
        share.pumpPid = undefined;
        if (this.#shares.get(name) === share) this.#parts.warn(`the file server of volume ${name} is gone`);
      });
      const exit = await this.#run('podvm-mount', [path, mountOptions(exported)], [second]);
      if (exit !== undefined) throw mountError(`mount volume ${name}`, exit);
    } catch (error) {
      if (share.pumpPid !== undefined) this.#kill(share.pumpPid);
      engine.removeTree(path);
      throw error;
    } finally {
      for (const fd of [portFd, first, second]) engine.close(fd); // pump and file system have their own
    }
    this.#shares.set(name, share);
  }

  /** Errors: `busy`, `timeout`; it is mounted still then. */
  async detach(name: string): Promise<void> {
    const share = this.#shares.get(name);
    if (share === undefined) return;
    const exit = await this.#run('podvm-unmount', [share.path], []);
    if (exit !== undefined) throw mountError(`remove volume ${name}`, exit);
    this.#shares.delete(name);
    this.#parts.engine.removeDirectory(share.path);
    if (share.pumpPid !== undefined) this.#kill(share.pumpPid);
  }

  /** Before the machine is powered off; what is in use still is not waited for. */
  async detachAll(): Promise<void> {
    await Promise.allSettled([...this.#shares.keys()].map((name) => this.detach(name)));
  }

  /** Undefined: it did what it should; else how it ended. One that takes too long is killed. */
  async #run(name: string, args: readonly string[], fds: readonly number[]): Promise<ChildExit | undefined> {
    const { engine, children } = this.#parts;
    const pid = this.#spawn(name, args, fds);
    const timer = engine.setTimer(mountTimeoutMs, () => this.#kill(pid));
    const exit = await children.wait(pid);
    engine.clearTimer(timer);
    return exit.code === 0 ? undefined : exit;
  }

  #spawn(name: string, args: readonly string[], fds: readonly number[]): number {
    const { engine } = this.#parts;
    const programFd = engine.open('/proc/self/exe', open.path);
    try {
      return engine.spawn({ argv: [name, ...args], programFd, env: [], fds, oomScoreAdj: -1000 });
    } finally {
      engine.close(programFd);
    }
  }

  #kill(pid: number): void {
    try {
      this.#parts.engine.kill(pid, signals.kill);
    } catch {
      // it has just ended
    }
  }
}

/**
 * `cache=mmap`, or a file could not be mapped writable. The server gives files no version, so that the kernel keeps
 * nothing of them that is read or written (v9fs_fid_add_modes): what the host changes is seen at once.
 * `access=user`: what a user makes is theirs on the host too.
 */
function mountOptions(exported: string): string {
  return [
    'trans=fd,rfdno=0,wfdno=0,version=9p2000.L,cache=mmap,access=user,uname=root',
    `msize=${limits.shareMessageBytes}`,
    `aname=${exported}`,
  ].join(',');
}

function mountError(what: string, { code, signal }: ChildExit): PodvmError {
  if (signal !== undefined) return new PodvmError('timeout', `Cannot ${what}: the host's file server does not answer`);
  const errno = errnos[code ?? 0] ?? `errno ${code}`;
  if (errno === 'EBUSY') return new PodvmError('busy', `Cannot ${what}: something uses it`);
  return new PodvmError('unavailable', `Cannot ${what}: ${errno}`);
}
