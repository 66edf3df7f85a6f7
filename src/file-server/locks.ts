import type { Descriptors, Timer, Timers } from '#engine/engine.ts';
import type { Served } from './served.ts';
import type { OpenFile } from './open-files.ts';
import { errno, lockFlags, lockType, openFlags, size } from './fuse.ts';
import type { Request } from './message.ts';
import type { Node } from './nodes.ts';

/** Of `struct fuse_lk_in`. */
const offset = { owner: 8, lock: 16, type: 32, flags: 40 } as const;

/** How long one that waits is not looked at again, in `ms`: what holds it may be a process of the host. */
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

/**
 * Locks that hold against the host's processes too. A range is locked by a descriptor that its owner alone has (an
 * *open file description lock*), for to the host all of the guest is one process. The kernel has no call that waits for
 * a lock and leaves the server free meanwhile: who waits is tried again when a lock is given back, and by the clock.
 */
export class Locks {
  readonly #engine: Served & Descriptors & Timers;
  readonly #waiting = new Map<string, Waiting>();

  constructor(engine: Served & Descriptors & Timers) {
    this.#engine = engine;
  }

  /** Result of a request for a lock; undefined: it waits, and `answer` is called when it has it or is interrupted. */
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

  /** Writes over the request's lock the one that is in its way. */
  test(file: OpenFile, request: Request): number {
    const own = file.node.lockOwners.get(request.key(offset.owner));
    return this.#engine.testLock(own ?? file.fd, request.bytes, request.at(offset.lock));
  }

  /** A process has closed one of its descriptors of the file: its locks of ranges are gone, as POSIX has it. */
  drop(node: Node, owner: string): void {
    const fd = node.lockOwners.get(owner);
    if (fd === undefined) return;
    node.lockOwners.delete(owner);
    this.#engine.close(fd);
    this.#tryAll();
  }

  /** Nobody has that open file any more: what was locked by it is free. */
  released(file: OpenFile): void {
    for (const [unique, waiting] of this.#waiting) {
      if (waiting.file === file) this.#end(unique, waiting, -errno.badHandle);
    }
    for (const owner of file.lockOwners) this.drop(file.node, owner);
    this.#tryAll(); // flock's went with the descriptor
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
      if (fd === undefined) return 0; // it has none to give back
      return fd < 0 ? fd : this.#engine.lockRange(fd, lock, 0);
    };
  }

  /** Open for writing if that can be, for the owner may want either kind of lock. */
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
