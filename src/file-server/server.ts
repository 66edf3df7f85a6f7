import { fileCalls } from './file-calls.ts';
import { Flushes } from './flushes.ts';
import { errno, initFlags, initFlags2, nobodyNamed, opcode, protocol, size } from './fuse.ts';
import { isAboutLock, Locks } from './locks.ts';
import { Reply, type Request } from './message.ts';
import { nodeCalls } from './node-calls.ts';
import { Nodes, type NodesOptions } from './nodes.ts';
import { OpenFiles } from './open-files.ts';
import { wouldChange } from './read-only.ts';
import { kindNumberOf } from './request-figures.ts';
import type { Result, ServerEngine, Service } from './service.ts';

const pageBytes = 4096;
/** A few answers without a body, and one of any but data. */
const maxHeldBytes = 1024;
/** Limit of the guest's requests under way. Writes of mapped pages keep their order with all others. */
const maxBackground = 0xffff;
const root = { uid: 0, gid: 0 };
const allFlags = Object.values(initFlags).reduce((all, flag) => all | flag, 0);
const lockFlags = initFlags.posixLocks | initFlags.flockLocks;

type User = Pick<Request, 'uid' | 'gid'>;

export interface FileServerOptions extends NodesOptions {
  /** Refuses all changes, also below mounts that appear later. */
  readonly isReadOnly: boolean;
  /** Leaves locks to the guest's kernel: on the host they would keep programs from files that the pod may only read. */
  readonly keepsLocksInGuest: boolean;
  /**
   * Whether the guest may mount the tree with mapped users (idmapped). Its kernel then names the owner, as in the tree,
   * when a file is made, and no user in other requests.
   */
  readonly mapsUsers: boolean;
  /** Most bytes that one request reads or writes. */
  readonly dataBytes: number;
}

/**
 * Answers the requests of one guest about one tree. Blocks on the host's file system, but not on a flush or a lock.
 * Acts as the user of the request, or as root if it names none. Only the guest's kernel knows a user's groups, and it
 * checks permissions by them.
 */
export class FileServer {
  readonly #service: Service;
  readonly #send: (message: Uint8Array, length: number) => void;
  /** Answers for which no caller waits: they go with the next one, or with `sendHeld`. */
  readonly #held = new Uint8Array(maxHeldBytes);
  #heldBytes = 0;
  readonly #flags: number;
  readonly #flags2: number;
  readonly #isReadOnly: boolean;
  readonly #keepsLocksInGuest: boolean;
  #user: User | undefined;

  /** Throws when the root cannot be served. */
  constructor(
    engine: ServerEngine,
    { mapsUsers, isReadOnly, keepsLocksInGuest, dataBytes, ...tree }: FileServerOptions,
    send: (message: Uint8Array, length: number) => void,
  ) {
    const reply = new Reply(dataBytes);
    const nodes = new Nodes(engine, tree, reply, (act) => this.#asRoot(act));
    const later = (request: Request) => {
      const unique = request.bytes.slice(8, 16);
      return (result: number) => this.#answer(unique, result);
    };
    const [files, locks, flushes] = [new OpenFiles(engine), new Locks(engine), new Flushes(engine)];
    this.#service = { engine, reply, nodes, files, locks, flushes, later };
    this.#send = send;
    this.#isReadOnly = isReadOnly;
    this.#keepsLocksInGuest = keepsLocksInGuest;
    this.#flags = keepsLocksInGuest ? allFlags & ~lockFlags : allFlags;
    this.#flags2 = initFlags2.directIoAllowsMapping | (mapsUsers ? initFlags2.allowsMappedUsers : 0);
  }

  serve(request: Request): void {
    const { engine } = this.#service;
    engine.beginRequest();
    const result = this.#resultOf(request);
    engine.endRequest(kindNumberOf(request.opcode));
    if (result === undefined) return;
    const unique = request.bytes.subarray(8, 16);
    if (request.opcode === opcode.release) this.#hold(unique, result);
    else this.#answer(unique, result);
  }

  /** Sends the answers that were held. To be called when no further request is at hand. */
  sendHeld(): void {
    const bytes = this.#heldBytes;
    this.#heldBytes = 0;
    if (bytes > 0) this.#send(this.#held, bytes);
  }

  #hold(unique: Uint8Array, result: number): void {
    const { reply } = this.#service;
    const length = reply.finish(unique, result);
    if (this.#heldBytes + length > maxHeldBytes) this.sendHeld();
    this.#held.set(reply.bytes.subarray(0, length), this.#heldBytes);
    this.#heldBytes += length;
  }

  #answer(unique: Uint8Array, result: number): void {
    const { reply } = this.#service;
    const told = result === -errno.tooManyOpen ? -errno.tableFull : result; // the limit is the server's
    const length = reply.finish(unique, told);
    if (this.#heldBytes > 0 && this.#heldBytes + length <= maxHeldBytes) {
      this.#held.set(reply.bytes.subarray(0, length), this.#heldBytes);
      this.#heldBytes += length;
      this.sendHeld();
      return;
    }
    this.sendHeld();
    this.#send(reply.bytes, length);
  }

  #resultOf(request: Request): Result {
    try {
      this.#actAs(request);
      return this.#call(request);
    } catch (error) {
      if (error instanceof RangeError) return -errno.invalid; // the message ends early, or a number is out of bounds
      this.#service.engine.print(`request ${request.opcode} failed: ${String(error)}`);
      return -errno.io;
    }
  }

  #actAs({ uid, gid }: User): void {
    if (this.#user?.uid === uid && this.#user.gid === gid) return;
    this.#user = undefined; // unknown if this fails halfway
    this.#service.engine.actAs(uid === nobodyNamed ? 0 : uid, gid === nobodyNamed ? 0 : gid);
    this.#user = { uid, gid };
  }

  #asRoot<T>(act: () => T): T {
    const user = this.#user ?? root;
    this.#actAs(root);
    try {
      return act();
    } finally {
      this.#actAs(user);
    }
  }

  #call(request: Request): Result {
    const { nodes, files, locks } = this.#service;
    if (this.#isReadOnly && wouldChange(request)) return -errno.readOnlyFileSystem;
    if (this.#keepsLocksInGuest && isAboutLock(request)) return -errno.noSuchCall;
    const onNode = nodeCalls.get(request.opcode);
    if (onNode !== undefined) {
      const node = nodes.get(request.node);
      return node === undefined ? -errno.stale : onNode(this.#service, node, request);
    }
    const onFile = fileCalls.get(request.opcode);
    if (onFile !== undefined) {
      const file = files.get(request.u64(0));
      return file === undefined ? -errno.badHandle : onFile(this.#service, file, request);
    }
    switch (request.opcode) {
      case opcode.init:
        return this.#init(request);
      case opcode.forget:
        nodes.forget(request.node, request.u64(0));
        return undefined;
      case opcode.batchForget:
        this.#forgetAll(request);
        return undefined;
      case opcode.interrupt:
        locks.interrupt(request.key(0));
        return undefined;
      case opcode.ioctl:
        return -errno.noTty;
      default:
        return -errno.noSuchCall;
    }
  }

  #init(request: Request): number {
    const { reply } = this.#service;
    if (request.u32(0) !== protocol.major) return -errno.invalid;
    reply.clear(size.init);
    reply.u32(0, protocol.major);
    reply.u32(4, protocol.minor);
    reply.u32(8, reply.maxBytes); // reads ahead for mapped files
    reply.u32(12, this.#flags);
    reply.u16(16, maxBackground);
    reply.u16(18, maxBackground);
    reply.u32(20, reply.maxBytes);
    reply.u32(24, 1); // times are exact to the nanosecond
    reply.u16(28, reply.maxBytes / pageBytes);
    reply.u32(32, this.#flags2);
    return size.init;
  }

  #forgetAll(request: Request): void {
    const count = request.u32(0);
    for (let at = 8; at < 8 + 16 * count; at += 16) this.#service.nodes.forget(request.u64(at), request.u64(at + 8));
  }
}
