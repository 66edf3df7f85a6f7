import type { Duplex } from 'node:stream';
import type { PodPort } from './pod-connection.ts';

/** Most connections: of those who have not shown the token, of those who have, of one link to a pod, and of all links. */
const most = { strangers: 64, pages: 128, link: 24, links: 64 } as const;

/** All of a server. */
export const maxConnections = most.strangers + most.pages + most.links;

/** For whom a connection works: a page with the token, or a link. */
type Holder = { readonly kind: 'page' } | { readonly kind: 'link'; readonly to: PodPort };

/**
 * Shares out connections, so that neither a pod's page, which may open hundreds, nor another user of this host keeps the
 * holder of the token from the dashboard. A connection is a stranger's until its first valid request; the oldest stranger
 * makes room for a new one.
 */
export class Connections {
  /** Oldest first. */
  readonly #holders = new Map<Duplex, Holder | undefined>();

  opened(socket: Duplex): void {
    this.#holders.set(socket, undefined);
    socket.once('close', () => this.#holders.delete(socket));
    if (this.#count((holder) => holder === undefined) <= most.strangers) return;
    for (const [oldest, holder] of this.#holders) {
      if (holder !== undefined) continue;
      oldest.destroy();
      this.#holders.delete(oldest);
      return;
    }
  }

  /** Gives the connection of a valid request to its sender; false: that sender has too many. */
  give(socket: Duplex, holder: Holder): boolean {
    this.#holders.delete(socket);
    const isFull =
      holder.kind === 'page'
        ? this.#count((other) => other?.kind === 'page') >= most.pages
        : this.#count((other) => other?.kind === 'link') >= most.links ||
          this.#count((other) => other?.kind === 'link' && other.to === holder.to) >= most.link;
    this.#holders.set(socket, isFull ? undefined : holder);
    return !isFull;
  }

  #count(isWanted: (holder: Holder | undefined) => boolean): number {
    let count = 0;
    for (const holder of this.#holders.values()) if (isWanted(holder)) count += 1;
    return count;
  }
}
