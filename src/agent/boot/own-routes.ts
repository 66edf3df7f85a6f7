import type { Files } from '#engine/engine.ts';

type Parts = Pick<Files, 'list' | 'status' | 'writeExisting'>;

const root = '/proc/sys/net';

/**
 * Addresses and routes are those that the host gives. A neighbour on the same network must not add to them or change
 * them: a router advertisement (RFC 4861) would, and so would a redirect, of IPv6 or IPv4. Kernel's
 * Documentation/networking/ip-sysctl.rst; `all` does not count for each of them, and a NIC that comes later begins as
 * `default`.
 */
const switches = {
  ipv6: ['accept_ra', 'autoconf', 'accept_redirects'],
  ipv4: ['accept_redirects'],
} as const;

/**
 * Of the network namespace that the agent is in, for all NICs there and to come. To be called before a NIC comes up. A pod's
 * own sysctls are set later, and may say otherwise. A kernel without IPv6 has no switches of it.
 */
export function keepOwnRoutes(parts: Parts): void {
  for (const [family, names] of Object.entries(switches)) {
    const directory = `${root}/${family}/conf`;
    if (parts.status(directory) === undefined) continue;
    for (const nic of parts.list(directory)) {
      for (const name of names) parts.writeExisting(`${directory}/${nic}/${name}`, '0');
    }
  }
}
