import type { CniResult } from './cni/cni-schema.ts';
import type { AddressedLink, Route } from './ip/ip-command.ts';
import type { GuestDns, GuestInterface, GuestNetwork, GuestRoute } from './network.ts';

/**
 * The guest's network configuration, read from the interface as the chain left it instead of from the chain's answer:
 * some plugins (Calico's, ptp) set routes that their answer does not name.
 */
export function guestNetworkOf(
  link: AddressedLink,
  routes: readonly Route[],
  result: CniResult,
  nodeDns: GuestDns,
): GuestNetwork {
  return {
    interfaces: [interfaceOf(link, routes)],
    routes: routesOf(routes),
    dns: dnsOf(result, nodeDns),
  };
}

function interfaceOf(link: AddressedLink, routes: readonly Route[]): GuestInterface {
  const isSubnetOnLink = (family: string) =>
    routes.some((route) => route.protocol === 'kernel' && isMain(route) && familyOf(route.dst) === family);
  const addresses = link.addr_info
    .filter((info) => info.scope === 'global')
    .map((info) => {
      // A plugin that removed the kernel's subnet route wants neighbours reached by its gateway, without a subnet.
      const prefix = isSubnetOnLink(info.family) ? info.prefixlen : info.family === 'inet6' ? 128 : 32;
      return `${info.local}/${prefix}`;
    });
  return { name: link.ifname, mac: link.address, mtu: link.mtu, addresses };
}

function routesOf(routes: readonly Route[]): readonly GuestRoute[] {
  const own = routes.filter((route) => isMain(route) && route.protocol !== 'kernel');
  const plain = own.map((route) => ({
    destination: destinationOf(route),
    ...(route.gateway === undefined ? {} : { gateway: route.gateway }),
  }));
  return [...plain.filter((route) => !('gateway' in route)), ...plain.filter((route) => 'gateway' in route)];
}

/** In the main table, unicast, and not link-local (the guest makes its own). */
function isMain(route: Route): boolean {
  return (route.table ?? 'main') === 'main' && (route.type ?? 'unicast') === 'unicast' && !/^f[ef]/i.test(route.dst);
}

function destinationOf(route: Route): string {
  const isV6 = familyOf(route.dst === 'default' ? (route.gateway ?? '') : route.dst) === 'inet6';
  if (route.dst === 'default') return isV6 ? '::/0' : '0.0.0.0/0';
  return route.dst.includes('/') ? route.dst : `${route.dst}/${isV6 ? 128 : 32}`;
}

const familyOf = (address: string) => (address.includes(':') ? 'inet6' : 'inet');

function dnsOf(result: CniResult, nodeDns: GuestDns): GuestDns {
  const nameservers = result.dns?.nameservers ?? [];
  if (nameservers.length === 0) return nodeDns;
  const { search, domain, options } = result.dns ?? {};
  return { nameservers, searches: search ?? (domain ? [domain] : []), options: options ?? [] };
}
