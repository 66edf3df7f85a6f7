import { isIPv6 } from 'node:net';
import type { HostPort } from './network.ts';

/** One host address of a host port. */
export interface PortAddress {
  readonly protocol: HostPort['protocol'];
  readonly address: string;
  readonly port: number;
}

export const isAnyAddress = (address: string | undefined): boolean =>
  address === undefined || ['', '0.0.0.0', '::'].includes(address);

/** The addresses on which a port is held: all of both families when the port names none. */
export function addressesOf({ protocol, hostIP, hostPort: port }: HostPort): readonly PortAddress[] {
  const addresses = hostIP === undefined || isAnyAddress(hostIP) ? ['0.0.0.0', '::'] : [hostIP];
  return addresses.map((address) => ({ protocol, address, port }));
}

/** `8080/TCP`, `127.0.0.1:8080/TCP`, `[::1]:8080/TCP`. */
export function portText({ protocol, address, port }: PortAddress): string {
  if (isAnyAddress(address)) return `${port}/${protocol}`;
  return `${isIPv6(address) ? `[${address}]` : address}:${port}/${protocol}`;
}

/** Such an address is never reached from another machine, nor by the kernel's IPv6 address translation. */
export const isLoopback = (address: string | undefined): boolean =>
  address !== undefined && (address === '::1' || address.startsWith('127.'));
