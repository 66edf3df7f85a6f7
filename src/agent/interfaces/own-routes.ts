import type { Files } from '#engine/engine.ts';

type Parts = Pick<Files, 'list' | 'status' | 'writeExisting'>;

const root = '/proc/sys/net';

/**
 * Switches that leave addresses and routes to the host. A neighbour on the same network must not add or change any, as
 * a router advertisement (RFC 4861) or a redirect of IPv6 or IPv4 would. Source: kernel,
 * Documentation/networking/ip-sysctl.rst; `all` does not apply to each of these, and a NIC that comes later starts as
 * `default`.
 */
const switches = {
  ipv6: ['accept_ra', 'autoconf', 'accept_redirects'],
  ipv4: ['accept_redirects'],
} as const;

/**
 * Sets the switches for all present and future NICs of the agent's network namespace. Call it before a NIC comes up. A
 * pod's own sysctls are set later, and may override them. A kernel without IPv6 lacks its switches.
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
