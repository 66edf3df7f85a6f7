import { PodvmError } from '#base/errors.ts';
import type { VolumeParams } from '#wire/pod-params.ts';
import { openPort } from '../io/port.ts';
import type { Children } from '../process/children.ts';
import { afterPauses } from '../process/poll.ts';
import { mountFlags, open, signals, unmountFlags } from '#engine/constants.ts';
import type { ChildExit, Clock, Descriptors, Files, Mounts, Processes } from '#engine/engine.ts';

export interface SharesParts {
  readonly engine: Clock & Descriptors & Files & Mounts & Processes;
  readonly children: Children;
  readonly loadModule: (name: string) => boolean;
  readonly warn: (text: string) => void;
}

interface Share {
  readonly path: string;
  /** Pid of the process that carries bytes between port and file system; undefined once it has ended. */
  pumpPid: number | undefined;
}

const sharesRoot = '/run/podvm/shares';
/** Time in which the kernel shows a port; long, since a busy host may give the guest no processor. */
const portTimeoutMs = 60_000;
/** Time for the first answer of a file server, as long as a kubelet waits; it takes milliseconds on an idle host. */
const answerTimeoutMs = 110_000;
/** Time for an unmount, in `ms`. After it, the host removes its half of the share. */
const unmountTimeoutMs = 20_000;

/** Names of the errno numbers of stat(2) and umount(2) that a caller can act on. */
const errnos: Readonly<Record<number, string>> = {
  5: 'EIO',
  16: 'EBUSY',
  103: 'ECONNABORTED',
  107: 'ENOTCONN',
};

/**
 * Directories of the host, as FUSE file systems, each with a server behind its own virtio-serial port. Processes
 * (`engine/shares.c`) wait for the host; the agent itself never does.
 */
export class Shares {
  readonly #parts: SharesParts;
  readonly #shares = new Map<string, Share>();

  constructor(parts: SharesParts) {
    this.#parts = parts;
  }

  /** Mount point of the volume; undefined when it is not a share. */
  path(name: string): string | undefined {
    return this.#shares.get(name)?.path;
  }

  /** Loads the driver, unless it is loaded already. */
  prepare(): void {
    this.#parts.loadModule('fuse');
  }

  /** Errors: `invalid`, `alreadyExists`, `timeout` (port, file server), `unavailable` (the server is gone). */
  async attach({ name, port }: VolumeParams): Promise<void> {
    const { engine } = this.#parts;
    if (port === undefined) throw new PodvmError('invalid', `Cannot create volume ${name}: a share needs a port`);
    if (this.#shares.has(name)) throw new PodvmError('alreadyExists', `Cannot create volume ${name}: it exists`);
    this.prepare();
    const portFd = await openPort(engine, port, portTimeoutMs).catch((cause: unknown) => {
      throw new PodvmError('timeout', `Cannot create volume ${name}: its port does not appear`, { cause });
    });
    const fds = [portFd];
    try {
      const fuseFd = engine.open('/dev/fuse', open.readWrite);
      fds.push(fuseFd);
      await this.#mount(name, portFd, fuseFd);
    } finally {
      for (const fd of fds) engine.close(fd); // pump and file system have their own copies
    }
  }

  async #mount(name: string, portFd: number, fuseFd: number): Promise<void> {
    const { engine, children } = this.#parts;
    const path = `${sharesRoot}/${name}`;
    const share: Share = { path, pumpPid: undefined };
    engine.makeDirectories(path);
    engine.mount('podvm', path, 'fuse', mountFlags.noDevices, `fd=${fuseFd},${mountOptions}`);
    try {
      const pumpPid = this.#spawn('podvm-pump', [], [portFd, fuseFd]);
      share.pumpPid = pumpPid;
      children.onExit(pumpPid, () => {
        share.pumpPid = undefined;
        if (this.#shares.get(name) === share) this.#parts.warn(`the file server of volume ${name} is gone`);
      });
      const exit = await this.#run('podvm-look', path, answerTimeoutMs);
      if (exit !== undefined) throw failure(`mount volume ${name}`, exit);
    } catch (error) {
      if (share.pumpPid !== undefined) this.#kill(share.pumpPid);
      engine.unmount(path, unmountFlags.detach);
      engine.removeDirectory(path);
      throw error;
    }
    this.#shares.set(name, share);
  }

  /** Errors: `busy`, `timeout`; it is still mounted then. */
  async detach(name: string): Promise<void> {
    const share = this.#shares.get(name);
    if (share === undefined) return;
    const exit = await this.#run('podvm-unmount', share.path, unmountTimeoutMs);
    if (exit !== undefined) throw failure(`remove volume ${name}`, exit);
    this.#shares.delete(name);
    this.#parts.engine.removeDirectory(share.path);
    if (share.pumpPid !== undefined) this.#kill(share.pumpPid);
  }

  /** Called before the machine is powered off; does not wait for shares in use. */
  async detachAll(): Promise<void> {
    await Promise.allSettled([...this.#shares.keys()].map((name) => this.detach(name)));
  }

  /** Returns undefined on success, otherwise the exit. Kills the process when it takes too long. */
  async #run(name: string, path: string, timeoutMs: number): Promise<ChildExit | undefined> {
    const { engine, children } = this.#parts;
    const pid = this.#spawn(name, [path], []);
    const done = afterPauses(engine, timeoutMs, () => this.#kill(pid));
    const exit = await children.wait(pid);
    done();
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
 * Options of the mount. The guest's kernel checks owners, modes and groups for every user (`allow_other`). It caches no
 * data, names or attributes, except those of mapped files, as the server requests with each answer.
 */
const mountOptions = 'rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other';

function failure(what: string, { code, signal }: ChildExit): PodvmError {
  if (signal !== undefined) return new PodvmError('timeout', `Cannot ${what}: the host's file server does not answer`);
  const errno = errnos[code ?? 0] ?? `errno ${code}`;
  if (errno === 'EBUSY') return new PodvmError('busy', `Cannot ${what}: something uses it`);
  return new PodvmError('unavailable', `Cannot ${what}: ${errno}`);
}
