import { type Addresses, types } from './frame-steps.ts';

/** Header kinds of IPv6 that lead to another: RFC 8200 and the registry of protocol numbers. */
const leading = [0, 43, 51, 60, 135, 139, 140, 253, 254];
const [fragment, icmp6, udp] = [44, 58, 17];
/** From a server's port to a client's. */
const [dhcp, dhcp6] = [0x0043_0044, 0x0223_0222];
const [routerAdvertisement, solicitation, advertisement, redirect] = [134, 135, 136, 137];

/**
 * Returns why a frame must not reach the victim, by the interpretation of its kernel; undefined if it may. The code is
 * independent of the filter, and follows every header to its end.
 */
export function faultOf(frame: Buffer, { attacker, victim, nobody }: Addresses): string | undefined {
  const isToMany = ((frame[0] ?? 0) & 1) === 1;
  if (!isToMany && !frame.subarray(0, 6).equals(victim.mac)) return 'it is for another';
  if (!frame.subarray(6, 12).equals(attacker.mac)) return 'it comes from another MAC';
  const packet = frame.subarray(14);
  switch (frame.readUInt16BE(12)) {
    case types.arp:
      if (packet.length < 28) return 'ARP that is cut';
      if (!packet.subarray(8, 14).equals(attacker.mac)) return 'ARP with another MAC';
      return packet.subarray(14, 18).equals(attacker.ip4) ? undefined : 'ARP with another address';
    case types.ip4:
      return faultOf4(packet, attacker.ip4);
    case types.ip6:
      return faultOf6(packet, [attacker.ip6, attacker.local6], nobody.ip6);
    default:
      return `it is of type ${frame.toString('hex', 12, 14)}`;
  }
}

function faultOf4(packet: Buffer, own: Buffer): string | undefined {
  if (packet.length < 20) return 'IPv4 that is cut';
  if (!packet.subarray(12, 16).equals(own)) return 'IPv4 from another address';
  if (packet[16] === 127) return 'IPv4 to loopback';
  const start = ((packet[0] ?? 0) & 15) * 4;
  const isFirst = (packet.readUInt16BE(6) & 0x1fff) === 0;
  if (packet[9] !== udp || !isFirst || packet.length < start + 4) return undefined;
  return packet.readUInt32BE(start) === dhcp ? 'an answer of DHCP' : undefined;
}

function faultOf6(packet: Buffer, own: readonly Buffer[], nobody: Buffer): string | undefined {
  if (packet.length < 40) return 'IPv6 that is cut';
  const source = packet.subarray(8, 24);
  const isOwn = own.some((address) => address.equals(source));
  if (!isOwn && !source.equals(nobody)) return 'IPv6 from another address';
  let [next, at] = [packet[6] ?? 0, 40];
  while (leading.includes(next) || next === fragment) {
    if (at + 8 > packet.length) return undefined;
    if (next === fragment && (packet.readUInt16BE(at + 2) & 0xfff8) !== 0) return undefined; // means nothing by itself
    const bytes =
      next === fragment ? 8 : next === 51 ? ((packet[at + 1] ?? 0) + 2) * 4 : ((packet[at + 1] ?? 0) + 1) * 8;
    [next, at] = [packet[at] ?? 0, at + bytes];
  }
  if (next === udp && at + 4 <= packet.length && packet.readUInt32BE(at) === dhcp6) return 'an answer of DHCPv6';
  if (next !== icmp6 || at >= packet.length) return isOwn ? undefined : 'a packet from no address';
  const kind = packet[at] ?? 0;
  if (kind === routerAdvertisement || kind === redirect) return `ICMPv6 of type ${kind}`;
  const claims = kind === advertisement || (kind === solicitation && !isOwn);
  const target = packet.subarray(at + 8, at + 24);
  if (target.length < 16) return undefined; // says nothing of an address
  return claims && !own.some((address) => address.equals(target)) ? `ICMPv6 of type ${kind} for another` : undefined;
}
