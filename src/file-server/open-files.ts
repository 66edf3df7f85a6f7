import type { Descriptors } from '#engine/engine.ts';
import type { Served } from './served.ts';
import { fileType, openFlags, openReplyFlags, size } from './fuse.ts';
import type { Reply } from './message.ts';
import type { Node } from './nodes.ts';

/** A file or directory that the guest has opened. */
export interface OpenFile {
  readonly fd: number;
  readonly node: Node;
  /** As the guest asked for it, less what is none of the host's. */
  readonly flags: number;
  /** Owners that have locked a range by it. */
  readonly lockOwners: Set<string>;
}

/** Bits of open(2) that are the host's too, and hold for as long as the file is open. */
export const keptFlags = openFlags.accessMode | openFlags.append | openFlags.dataSync | openFlags.sync;

const openedFlags = keptFlags | openFlags.truncate | openFlags.toBeRun;

/** What the guest has open, by the number it was told. */
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

  /** Opens a node and replies with its handle, from `offset` on: bytes of it, or an error. */
  open(node: Node, flags: number, reply: Reply, offset = 0): number {
    const asked = node.type === fileType.directory ? openFlags.directory : flags & openedFlags;
    const fd = this.#engine.openFile(node.fd, asked);
    return fd < 0 ? fd : this.add(fd, node, flags, reply, offset);
  }

  /** The same for one that is open already, which is taken over. */
  add(fd: number, node: Node, flags: number, reply: Reply, offset: number): number {
    const id = ++this.#lastId;
    this.#byId.set(id, { fd, node, flags: flags & keptFlags, lockOwners: new Set() });
    node.openFiles++;
    reply.u64(offset, id);
    reply.u64(offset + 8, node.type === fileType.directory ? 0 : this.#replyFlags(fd, flags));
    return size.open;
  }

  /**
   * Closing a file that is written anew tells nothing that its writes did not, unless it is behind a network; and nobody
   * locks ranges of it, which closing would give up. So that is not asked, for it takes as long as writing to it.
   */
  #replyFlags(fd: number, flags: number): number {
    const isAnew = (flags & (openFlags.truncate | openFlags.exclusive)) !== 0;
    const isWriteOnly = (flags & openFlags.accessMode) === openFlags.writeOnly;
    const noFlush = isAnew && isWriteOnly && this.#engine.isLocal(fd) ? openReplyFlags.noFlush : 0;
    return openReplyFlags.directIo | noFlush;
  }

  /** Closes it. */
  remove(id: number): void {
    const file = this.#byId.get(id);
    this.#byId.delete(id);
    if (file !== undefined) this.#engine.close(file.fd);
  }
}
