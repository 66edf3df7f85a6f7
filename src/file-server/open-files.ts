import type { Descriptors } from '#engine/engine.ts';
import type { Served } from './served.ts';
import { fileType, openFlags, openReplyFlags, size } from './fuse.ts';
import type { Reply } from './message.ts';
import type { Node } from './nodes.ts';

/** A file or directory that the guest has open. */
export interface OpenFile {
  readonly fd: number;
  readonly node: Node;
  /** Flags of the guest's request that the host uses too. */
  readonly flags: number;
  /** Owners that have locked a range through it. */
  readonly lockOwners: Set<string>;
}

/** Bits of open(2) that the host uses too and that apply while the file is open. */
export const keptFlags = openFlags.accessMode | openFlags.append | openFlags.dataSync | openFlags.sync;

const openedFlags = keptFlags | openFlags.truncate | openFlags.toBeRun;

/** Files that the guest has open, by handle. */
export class OpenFiles {
  readonly #engine: Served & Descriptors;
  readonly #byId = new Map<number, OpenFile>();
  #lastId = 0;

  constructor(engine: Served & Descriptors) {
    this.#engine = engine;
  }

  get(id: number): OpenFile | undefined {
    return this.#byId.get(id);
  }

  /** Opens a node and writes its handle at `offset` of the reply. Returns its bytes, or an error. */
  open(node: Node, flags: number, reply: Reply, offset = 0): number {
    const asked = node.type === fileType.directory ? openFlags.directory : flags & openedFlags;
    const fd = this.#engine.openFile(node.fd, asked);
    return fd < 0 ? fd : this.add(fd, node, flags, reply, offset);
  }

  /** Takes over an open descriptor and writes its handle. */
  add(fd: number, node: Node, flags: number, reply: Reply, offset: number): number {
    const id = ++this.#lastId;
    this.#byId.set(id, { fd, node, flags: flags & keptFlags, lockOwners: new Set() });
    node.openFiles++;
    reply.u64(offset, id);
    reply.u64(offset + 8, node.type === fileType.directory ? 0 : this.#replyFlags(fd, flags));
    return size.open;
  }

  /**
   * Asks the guest not to report closes of a new, write-only file on a local file system: its writes have reported all
   * errors, it has no locks of ranges to release, and a report takes as long as a write.
   */
  #replyFlags(fd: number, flags: number): number {
    const isNew = (flags & (openFlags.truncate | openFlags.exclusive)) !== 0;
    const isWriteOnly = (flags & openFlags.accessMode) === openFlags.writeOnly;
    const noFlush = isNew && isWriteOnly && this.#engine.isLocal(fd) ? openReplyFlags.noFlush : 0;
    return openReplyFlags.directIo | noFlush;
  }

  /** Closes the file and forgets its handle. */
  remove(id: number): void {
    const file = this.#byId.get(id);
    this.#byId.delete(id);
    if (file !== undefined) this.#engine.close(file.fd);
  }
}
