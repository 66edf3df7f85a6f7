import type { Descriptors, Timer, Timers } from '#engine/engine.ts';
import type { Served } from './served.ts';
import type { OpenFile } from './open-files.ts';
import { errno, lockFlags, lockType, opcode, openFlags, size } from './fuse.ts';
import type { Request } from './message.ts';
import type { Node } from './nodes.ts';

/** Offsets in `struct fuse_lk_in`. */
const offset = { owner: 8, lock: 16, type: 32, flags: 40 } as const;

/** Time between two attempts, in `ms`: a process of the host may hold the lock. */
const firstWaitMs = 1;
const maxWaitMs = 50;
const maxWaiting = 1024;

interface Waiting {
  readonly file: OpenFile;
  readonly attempt: () => number;
  readonly answer: (result: number) => void;
  waitMs: number;
  timer: Timer;
}

const requests: ReadonlySet<number> = new Set([opcode.getLock, opcode.setLock, opcode.setLockWaiting]);

export const isAboutLock = (request: Pick<Request, 'opcode'>): boolean => requests.has(request.opcode);

/**
 * Locks that also hold against the host's processes. A range is locked by a descriptor that only its owner has (an
 * *open file description lock*), since the guest is one process to the host. The kernel has no call that waits for a
 * lock without blocking the server, so waiting requests are tried again when a lock is released, and by the clock.
 */
export class Locks {
  readonly #engine: Served & Descriptors & Timers;
  readonly #waiting = new Map<string, Waiting>();

  constructor(engine: Served & Descriptors & Timers) {
    this.#engine = engine;
  }

  /** Sets or releases a lock. Undefined: it waits, and `answer` is called when it has the lock or is interrupted. */
  set(file: OpenFile, request: Request, answer?: (result: number) => void): number | undefined {
    const attempt = this.#attempt(file, request);
    const result = attempt();
    if (result !== -errno.again || answer === undefined) {
      if (request.u32(offset.type) === lockType.none) this.#tryAll();
      return result;
    }
    if (this.#waiting.size >= maxWaiting) return -errno.noLocks;
    const { unique } = request;
    const waiting: Waiting = { file, attempt, answer, waitMs: firstWaitMs, timer: 0 };
    this.#waiting.set(unique, waiting);
    this.#wait(unique, waiting);
    return undefined;
  }

  /** Replaces the lock in the request by the one that conflicts with it. */
  test(file: OpenFile, request: Request): number {
    const own = file.node.lockOwners.get(request.key(offset.owner));
    return this.#engine.testLock(own ?? file.fd, request.bytes, request.at(offset.lock));
  }

  /** Drops a process's locks of ranges when it closes any descriptor of the file, as POSIX says. */
  drop(node: Node, owner: string): void {
    const fd = node.lockOwners.get(owner);
    if (fd === undefined) return;
    node.lockOwners.delete(owner);
    this.#engine.close(fd);
    this.#tryAll();
  }

  /** Frees the locks of an open file that has been closed. */
  released(file: OpenFile): void {
    for (const [unique, waiting] of this.#waiting) {
      if (waiting.file === file) this.#end(unique, waiting, -errno.badHandle);
    }
    for (const owner of file.lockOwners) this.drop(file.node, owner);
    this.#tryAll(); // those of flock went with the descriptor
  }

  interrupt(unique: string): void {
    const waiting = this.#waiting.get(unique);
    if (waiting !== undefined) this.#end(unique, waiting, -errno.interrupted);
  }

  #attempt(file: OpenFile, request: Request): () => number {
    const type = request.u32(offset.type);
    if ((request.u32(offset.flags) & lockFlags.flock) !== 0) return () => this.#engine.lockFile(file.fd, type);
    const owner = request.key(offset.owner);
    const start = request.at(offset.lock);
    const lock = request.bytes.slice(start, start + size.lock);
    return () => {
      const fd = file.node.lockOwners.get(owner) ?? (type === lockType.none ? undefined : this.#openFor(file, owner));
      if (fd === undefined) return 0; // it has none to release
      return fd < 0 ? fd : this.#engine.lockRange(fd, lock, 0);
    };
  }

  /** Opens for writing if possible, since the owner may want either kind of lock. */
  #openFor(file: OpenFile, owner: string): number {
    const both = this.#engine.openFile(file.node.fd, openFlags.readWrite);
    const fd = both >= 0 ? both : this.#engine.reopenFile(file.node.fd, file.flags & openFlags.accessMode);
    if (fd < 0) return fd;
    file.node.lockOwners.set(owner, fd);
    file.lockOwners.add(owner);
    return fd;
  }

  #wait(unique: string, waiting: Waiting): void {
    waiting.timer = this.#engine.setTimer(waiting.waitMs, () => {
      waiting.waitMs = Math.min(waiting.waitMs * 2, maxWaitMs);
      if (!this.#try(unique, waiting)) this.#wait(unique, waiting);
    });
  }

  #tryAll(): void {
    for (const [unique, waiting] of this.#waiting) this.#try(unique, waiting);
  }

  #try(unique: string, waiting: Waiting): boolean {
    const result = waiting.attempt();
    if (result === -errno.again) return false;
    this.#end(unique, waiting, result);
    return true;
  }

  #end(unique: string, { timer, answer }: Waiting, result: number): void {
    this.#engine.clearTimer(timer);
    this.#waiting.delete(unique);
    answer(result);
  }
}
