import { holdsData } from '#base/file-systems.ts';
import type { Descriptors } from '#engine/engine.ts';
import type { Powers } from './powers.ts';
import type { Served } from './served.ts';
import { errno, fileType, rootNode, size } from './fuse.ts';
import type { Reply, Request } from './message.ts';

export type NodesEngine = Served & Descriptors & Pick<Powers, 'fileSystemOf'>;

export interface NodesOptions {
  readonly root: string;
  /** Numbers of devtmpfs, `MAJOR:MINOR`. */
  readonly kernelDevices: ReadonlySet<string>;
}

const deviceOf = (identity: string) => identity.slice(0, identity.indexOf(':'));

/** A file that the guest knows by a number: an O_PATH descriptor, which stays with the file wherever it is moved. */
export interface Node {
  readonly id: number;
  readonly fd: number;
  readonly identity: string;
  readonly type: number;
  /** How often the guest was told of it, less how often it has forgotten. */
  lookups: number;
  /** Files that are open by it: they keep it, whatever the guest says. */
  openFiles: number;
  /** Locks of ranges: a descriptor for each owner, as the guest's kernel names it. */
  readonly lockOwners: Map<string, number>;
}

/** Of `struct fuse_entry_out`: for how long its attributes hold, and these; and of them, mode. */
const attributesValid = 36;
const attributesInEntry = 40;
const modeInAttributes = 60;

/**
 * The guest's kernel rounds it up to the next tick of its clock (4 to 8 ms): long enough that one open or stat does not
 * ask twice for the same, and short enough to be called at once. Names are never kept.
 */
const validNanoseconds = 1;

/** The guest's numbers for files. A file has one for as long as the guest knows it, under whatever names. */
export class Nodes {
  readonly #engine: NodesEngine;
  readonly #kernelDevices: ReadonlySet<string>;
  readonly #byId = new Map<number, Node>();
  readonly #byIdentity = new Map<string, Node>();
  #lastId = rootNode - 1;

  /** `root`: path of the directory that is served. Errors: those of opening it, as a number. */
  constructor(engine: NodesEngine, { root, kernelDevices }: NodesOptions, scratch: Reply) {
    this.#engine = engine;
    this.#kernelDevices = kernelDevices;
    const fd = engine.openRoot(root);
    const identity = fd < 0 ? fd : engine.look(fd, scratch.bytes, scratch.at(0));
    if (typeof identity === 'number') throw new Error(`Cannot serve ${root}: errno ${-identity}`);
    if (!this.#holdsData(fd)) throw new Error(`Cannot serve ${root}: it is on a file system of the kernel's own`);
    this.#add(fd, identity, fileType.directory);
  }

  get(id: number): Node | undefined {
    return this.#byId.get(id);
  }

  /** Replies with the entry of that name: a lookup, also after a name was made. */
  enter(directory: Node, request: Request, nameAt: number, reply: Reply): number {
    const { bytes } = request;
    const at = request.at(nameAt);
    const out = reply.at(attributesInEntry);
    reply.clear(attributesInEntry);
    const identity = this.#engine.lookIn(directory.fd, bytes, at, reply.bytes, out);
    if (typeof identity === 'number') return identity;
    const known = this.#byIdentity.get(identity);
    if (known !== undefined) return this.#tell(known, reply);
    const fd = this.#engine.openNode(directory.fd, bytes, at);
    return this.enterNode(directory, fd, reply);
  }

  /** The same for a node of the directory that was opened already, which is taken over; or the error of opening it. */
  enterNode(directory: Node, fd: number, reply: Reply): number {
    if (fd < 0) return fd;
    reply.clear(attributesInEntry);
    const identity = this.#engine.look(fd, reply.bytes, reply.at(attributesInEntry));
    const known = typeof identity === 'number' ? undefined : this.#byIdentity.get(identity);
    if (typeof identity === 'number' || known !== undefined) this.#engine.close(fd);
    if (typeof identity === 'number') return identity;
    if (known === undefined && !this.#mayCross(directory, identity, fd)) {
      this.#engine.close(fd);
      return -errno.access;
    }
    const type = reply.readU32(attributesInEntry + modeInAttributes) & fileType.mask;
    return this.#tell(known ?? this.#add(fd, identity, type), reply);
  }

  /** Replies with the attributes alone. */
  attributes(node: Node, reply: Reply): number {
    reply.clear(size.attributesReply - size.attributes);
    const identity = this.#engine.look(node.fd, reply.bytes, reply.at(size.attributesReply - size.attributes));
    reply.u32(8, validNanoseconds);
    return typeof identity === 'number' ? identity : size.attributesReply;
  }

  /** The guest knows it that many times less. */
  forget(id: number, count: number): void {
    const node = this.#byId.get(id);
    if (node === undefined) return;
    node.lookups -= count;
    this.#removeUnused(node);
  }

  /** One that was open by it is closed. */
  closed(node: Node): void {
    node.openFiles--;
    this.#removeUnused(node);
  }

  /**
   * Where the device changes another file system begins, which may be the kernel's: mounted, perhaps, a moment ago. A
   * node keeps its device's number from being given to another file system.
   */
  #mayCross(directory: Node, identity: string, fd: number): boolean {
    return deviceOf(identity) === deviceOf(directory.identity) || this.#holdsData(fd);
  }

  #holdsData(fd: number): boolean {
    const found = this.#engine.fileSystemOf(fd);
    return typeof found !== 'number' && holdsData(found, this.#kernelDevices);
  }

  #removeUnused(node: Node): void {
    if (node.lookups > 0 || node.openFiles > 0 || node.id === rootNode) return;
    this.#byId.delete(node.id);
    this.#byIdentity.delete(node.identity);
    this.#engine.close(node.fd);
  }

  #tell(node: Node, reply: Reply): number {
    node.lookups++;
    reply.u64(0, node.id);
    reply.u32(attributesValid, validNanoseconds);
    return size.entry;
  }

  #add(fd: number, identity: string, type: number): Node {
    const node: Node = { id: ++this.#lastId, fd, identity, type, lookups: 0, openFiles: 0, lockOwners: new Map() };
    this.#byId.set(node.id, node);
    this.#byIdentity.set(identity, node);
    return node;
  }
}
