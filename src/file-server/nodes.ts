import { holdsData } from '#base/file-systems.ts';
import type { Descriptors, Timers } from '#engine/engine.ts';
import type { Powers } from './powers.ts';
import type { Served } from './served.ts';
import { errno, fileType, rootNode, size } from './fuse.ts';
import type { Reply, Request } from './message.ts';

export type NodesEngine = Served & Descriptors & Timers & Pick<Powers, 'fileSystemOf'>;

export interface NodesOptions {
  readonly root: string;
  /** Numbers of devtmpfs, `MAJOR:MINOR`. */
  readonly kernelDevices: ReadonlySet<string>;
  /**
   * Whether mounts and unmounts of the host appear in the tree. A descriptor in a mount keeps the host from unmounting
   * it, and the guest's kernel remembers files for as long as it has memory, so unused nodes are closed in that case.
   */
  readonly propagates: boolean;
}

/** Last known place of a file; the name ends with NUL. */
export interface Place {
  readonly directory: Node;
  readonly name: Uint8Array;
}

/** Time without an open file after which a node is closed, in `ms`; it may take up to twice as long. */
const releaseMs = 250;
/** Limit of directories that are reopened for one node, as many as in the kernel's longest path. */
const maxDepth = 2048;

const deviceOf = (identity: string) => identity.slice(0, identity.indexOf(':'));

/** A file that the guest knows by a number: an O_PATH descriptor, which follows the file when it is moved. */
export interface Node {
  readonly id: number;
  /** Negative while it is closed; `Nodes.get` opens it again. */
  fd: number;
  readonly identity: string;
  readonly type: number;
  /** Number of lookups that the guest has not forgotten. */
  lookups: number;
  /** Open files of this node. They keep it even if the guest forgets it. */
  openFiles: number;
  /** Descriptors that hold locks of ranges, by owner as the guest's kernel names it. */
  readonly lockOwners: Map<string, number>;
  /** Absent if the node stays open. */
  place: Place | undefined;
  /** Whether a request has used it since the last check. */
  isUsed: boolean;
}

/** Offsets in `struct fuse_entry_out`: validity of its attributes, the attributes, and the mode in them. */
const attributesValid = 36;
const attributesInEntry = 40;
const modeInAttributes = 60;

/**
 * Validity of attributes. The guest's kernel rounds it up to the next tick of its clock (4 to 8 ms), so that one open
 * or stat makes one request, and changes of the host show almost at once. Names are never cached.
 */
const validNanoseconds = 1;

/** The guest's numbers for files. A file keeps its number while the guest knows it, under any of its names. */
export class Nodes {
  readonly #engine: NodesEngine;
  readonly #kernelDevices: ReadonlySet<string>;
  readonly #propagates: boolean;
  readonly #asRoot: <T>(act: () => T) => T;
  readonly #scratch = new Uint8Array(size.attributes);
  /** Open nodes that may be closed. */
  readonly #held = new Set<Node>();
  #isReleasing = false;
  readonly #byId = new Map<number, Node>();
  readonly #byIdentity = new Map<string, Node>();
  #lastId = rootNode - 1;

  /**
   * Opens the directory that is served. `asRoot` acts as root for a moment. Throws if the directory cannot be opened or
   * is on a file system of the kernel's own.
   */
  constructor(
    engine: NodesEngine,
    { root, kernelDevices, propagates }: NodesOptions,
    scratch: Reply,
    asRoot: <T>(act: () => T) => T,
  ) {
    this.#engine = engine;
    this.#kernelDevices = kernelDevices;
    this.#propagates = propagates;
    this.#asRoot = asRoot;
    const fd = engine.openRoot(root);
    const identity = fd < 0 ? fd : engine.look(fd, scratch.bytes, scratch.at(0));
    if (typeof identity === 'number') throw new Error(`Cannot serve ${root}: errno ${-identity}`);
    if (!this.#holdsData(fd)) throw new Error(`Cannot serve ${root}: it is on a file system of the kernel's own`);
    this.#add(fd, identity, fileType.directory, undefined);
  }

  /** Returns undefined for an unknown number, and for a closed node whose file has moved. */
  get(id: number): Node | undefined {
    const node = this.#byId.get(id);
    if (node === undefined) return undefined;
    node.isUsed = true;
    return node.fd >= 0 || this.#openAgain(node) ? node : undefined;
  }

  /** Replies with the entry of a name, which may have just been made. */
  enter(directory: Node, request: Request, nameAt: number, reply: Reply): number {
    const { bytes } = request;
    const at = request.at(nameAt);
    const out = reply.at(attributesInEntry);
    reply.clear(attributesInEntry);
    const identity = this.#engine.lookIn(directory.fd, bytes, at, reply.bytes, out);
    if (typeof identity === 'number') return identity;
    const known = this.#byIdentity.get(identity);
    const place = this.placeOf(directory, request, nameAt);
    if (known !== undefined) return this.#tell(known, place, reply);
    const fd = this.#engine.openNode(directory.fd, bytes, at);
    return this.enterNode(directory, fd, reply, place);
  }

  /** Returns the place of a name in the request; undefined if nodes stay open. */
  placeOf(directory: Node, request: Request, nameAt: number): Place | undefined {
    if (!this.#propagates) return undefined;
    const start = request.at(nameAt);
    return { directory, name: request.bytes.slice(start, request.bytes.indexOf(0, start) + 1) };
  }

  /** Records the new place of a file that was given another name. */
  renamed(directory: Node, request: Request, nameAt: number): void {
    if (!this.#propagates) return;
    const identity = this.#engine.lookIn(directory.fd, request.bytes, request.at(nameAt), this.#scratch, 0);
    const node = typeof identity === 'number' ? undefined : this.#byIdentity.get(identity);
    if (node?.place !== undefined) node.place = this.placeOf(directory, request, nameAt);
  }

  /** Replies with the entry of an opened node of the directory and takes it over. A negative `fd` is an error. */
  enterNode(directory: Node, fd: number, reply: Reply, place?: Place): number {
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
    return this.#tell(known ?? this.#add(fd, identity, type, place), place, reply);
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
    this.#hold(node);
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
    this.#held.delete(node);
    if (node.fd >= 0) this.#engine.close(node.fd);
    node.fd = -1;
  }

  #tell(node: Node, place: Place | undefined, reply: Reply): number {
    node.lookups++;
    if (place !== undefined && node.place !== undefined) node.place = place;
    reply.u64(0, node.id);
    reply.u32(attributesValid, validNanoseconds);
    return size.entry;
  }

  #add(fd: number, identity: string, type: number, place: Place | undefined): Node {
    const counts = { lookups: 0, openFiles: 0, lockOwners: new Map<string, number>() };
    const node: Node = { id: ++this.#lastId, fd, identity, type, ...counts, place, isUsed: true };
    this.#byId.set(node.id, node);
    this.#byIdentity.set(identity, node);
    this.#hold(node);
    return node;
  }

  /** Remembers an open node, which is closed when it is not in use. */
  #hold(node: Node): void {
    if (node.place === undefined || node.fd < 0 || node.openFiles > 0) return;
    this.#held.add(node);
    this.#releaseLater();
  }

  #releaseLater(): void {
    if (this.#isReleasing || this.#held.size === 0) return;
    this.#isReleasing = true;
    this.#engine.setTimer(releaseMs, () => {
      this.#isReleasing = false;
      this.#release();
      this.#releaseLater();
    });
  }

  #release(): void {
    for (const node of [...this.#held]) {
      const stays = node.isUsed && node.openFiles === 0;
      node.isUsed = false;
      if (stays) continue;
      this.#held.delete(node);
      if (node.openFiles > 0) continue; // noted again when they are closed
      this.#engine.close(node.fd);
      node.fd = -1;
    }
  }

  /** Reopens a closed node, after the closed directories above it. */
  #openAgain(node: Node): boolean {
    const closed: Node[] = [];
    for (let at = node; at.fd < 0;) {
      const directory = at.place?.directory;
      if (directory === undefined || this.#byId.get(directory.id) !== directory || closed.length > maxDepth)
        return false;
      closed.push(at);
      at = directory;
    }
    return closed.toReversed().every((each) => this.#openAtPlace(each) || this.#asRoot(() => this.#openAtPlace(each)));
  }

  /** Returns false if another file has taken its place or a file system was mounted over it. */
  #openAtPlace(node: Node): boolean {
    const { place } = node;
    const fd = place === undefined ? -1 : this.#engine.openNode(place.directory.fd, place.name, 0);
    if (fd < 0) return false;
    if (this.#engine.look(fd, this.#scratch, 0) !== node.identity || !this.#holdsData(fd)) {
      this.#engine.close(fd);
      return false;
    }
    node.fd = fd;
    this.#hold(node);
    return true;
  }
}
