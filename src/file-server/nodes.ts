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

/** A file that the guest knows by a number: an O_PATH descriptor, which follows the file when it is moved. */
export interface Node {
  readonly id: number;
  readonly fd: number;
  readonly identity: string;
  readonly type: number;
  /** Number of lookups that the guest has not forgotten. */
  lookups: number;
  /** Open files of this node. They keep it even if the guest forgets it. */
  openFiles: number;
  /** Descriptors that hold locks of ranges, by owner as the guest's kernel names it. */
  readonly lockOwners: Map<string, number>;
}

/** Offsets in `struct fuse_entry_out`: validity of its attributes, the attributes, and the mode in them. */
const attributesValid = 36;
const attributesInEntry = 40;
const modeInAttributes = 60;

/**
 * Validity of attributes. The guest's kernel rounds it up to the next tick of its clock (4 to 8 ms): one open or stat
 * does not ask twice, and changes of the host show almost at once. Names are never cached.
 */
const validNanoseconds = 1;

/** The guest's numbers for files. A file keeps its number while the guest knows it, under any of its names. */
export class Nodes {
  readonly #engine: NodesEngine;
  readonly #kernelDevices: ReadonlySet<string>;
  readonly #byId = new Map<number, Node>();
  readonly #byIdentity = new Map<string, Node>();
  #lastId = rootNode - 1;

  /** Opens the directory that is served. Throws if it cannot be opened or is a file system of the kernel's own. */
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

  /** Replies with the entry of a name, also after the name was made. */
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

  /** Replies with the entry of an opened node of the directory and takes it over. A negative `fd` is an error. */
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

  /** Replies with the attributes. */
  attributes(node: Node, reply: Reply): number {
    reply.clear(size.attributesReply - size.attributes);
    const identity = this.#engine.look(node.fd, reply.bytes, reply.at(size.attributesReply - size.attributes));
    reply.u32(8, validNanoseconds);
    return typeof identity === 'number' ? identity : size.attributesReply;
  }

  /** Subtracts lookups that the guest has forgotten. */
  forget(id: number, count: number): void {
    const node = this.#byId.get(id);
    if (node === undefined) return;
    node.lookups -= count;
    this.#removeUnused(node);
  }

  /** Counts an open file as closed. */
  closed(node: Node): void {
    node.openFiles--;
    this.#removeUnused(node);
  }

  /**
   * Whether a file may be served: where the device changes, another file system begins, which may be the kernel's own
   * and just mounted. A node keeps its device's number from being reused by another file system.
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
