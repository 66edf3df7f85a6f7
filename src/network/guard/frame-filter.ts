import { parsePrefix, type Prefix } from '../ip/ipv4.ts';
import { ipv6Words } from '../ip/ipv6.ts';
import {
  assemble,
  byte,
  end,
  frameLength,
  goTo,
  half,
  ifAny,
  ifBelow,
  ifIs,
  type Instruction,
  label,
  masked,
  unlessIs,
  verdicts,
  vlanTagPresent,
  word,
  type Step,
} from './packet-program.ts';

/** Filters in each direction between guest and network. */
export interface FrameFilters {
  readonly fromGuest: readonly Instruction[];
  readonly toGuest?: readonly Instruction[];
}

/** Returns the filters of a pod: by its rules on the built-in network, and only against loopback on other networks. */
export const filtersFor = (rules: PortRules | undefined): FrameFilters =>
  rules === undefined
    ? { fromGuest: noLoopback }
    : { fromGuest: frameFilter(rules), toGuest: ownFramesOnly(rules.mac) };

/** Rules for the frames that a pod sends through its port of the built-in network. */
export interface PortRules {
  readonly mac: string;
  /** With prefix lengths, at most one per family. */
  readonly addresses: readonly string[];
  readonly gateways: readonly string[];
  /** MAC of the bridge, and so of the gateways. */
  readonly gatewayMac: string | undefined;
  /** Whether the pod may reach link-local services other than DNS, such as cloud metadata. */
  readonly reachesMetadata: boolean;
}

const [ipv4Type, arpType, ipv6Type] = [0x0800, 0x0806, 0x86dd];
/** Offset of the network header in a frame, and of the payload behind it without options or extensions. */
const ip = 14;
const [payload4, payload6] = [ip + 20, ip + 40];
const [tcp, udp, igmp, icmp6] = [6, 17, 2, 58];
const dns = 53;
/** Source ports of DHCP and DHCPv6 servers. */
const [dhcpServer, dhcp6Server] = [67, 547];

/**
 * Addresses of cloud instance metadata besides 169.254.0.0/16: Azure, Alibaba, Oracle. These services give the node's
 * secrets to any process of the node.
 */
const metadata4 = ['168.63.129.16', '100.100.100.200', '192.0.0.192'];
const metadata6 = ['fd00:ec2::254', 'fd20:ce::254']; // Amazon, Google

/**
 * Drops frames with a forged sender or that act for the network: other source addresses (Ethernet, ARP, IPv4, IPv6),
 * neighbour advertisements of other addresses, router advertisements, redirects, DHCP answers, VLAN tags, and protocols
 * other than IP and ARP. The rest goes to the next filter. The guest controls every byte of a frame: each load follows a
 * check of the length, since a load beyond the end would accept the frame.
 */
export function frameFilter(rules: PortRules): readonly Instruction[] {
  const mac = macOf(rules.mac);
  const own4 = rules.addresses.map((address) => parsePrefix(address.replace(/\/\d+$/, ''))).find((each) => each);
  const own6 = [...rules.addresses.filter((each) => each.includes(':')).map(ipv6Words), linkLocalOf(rules.mac)];
  return assemble([
    frameLength,
    ifBelow(ip, 'drop'),
    vlanTagPresent,
    unlessIs(0, 'drop'),
    word(6),
    unlessIs(mac.high, 'drop'),
    half(10),
    unlessIs(mac.low, 'drop'),
    half(12),
    ...(own4 === undefined ? [] : [ifIs(ipv4Type, 'ip4'), ifIs(arpType, 'arp')]),
    ifIs(ipv6Type, 'ip6'),
    goTo('drop'),
    ...(own4 === undefined ? [] : [...arpSteps(mac, own4.base), ...ipv4Steps(own4.base, rules)]),
    ...ipv6Steps(own6, rules),
    label('drop'),
    end(verdicts.drop),
    label('pass'),
    end(verdicts.next),
  ]);
}

/**
 * Drops packets to and from 127.0.0.0/8, which no network has (RFC 1122, 3.2.1.3). A node with `route_localnet`, which
 * portmap sets, would give them to its own services (CVE-2020-8558).
 */
export const noLoopback: readonly Instruction[] = assemble([
  frameLength,
  ifBelow(payload4, 'pass'),
  half(12),
  unlessIs(ipv4Type, 'pass'),
  ...[ip + 12, ip + 16].flatMap((at) => [word(at), masked(0xff00_0000), ifIs(0x7f00_0000, 'drop')]),
  label('pass'),
  end(verdicts.next),
  label('drop'),
  end(verdicts.drop),
]);

/** Drops frames for other MACs, which a bridge sends to every port while it does not know where the addressee is. */
export function ownFramesOnly(mac: string): readonly Instruction[] {
  const { high, low } = macOf(mac);
  const toMany = 0x0100_0000;
  return assemble([
    word(0),
    ifAny(toMany, 'pass'),
    unlessIs(high, 'drop'),
    half(4),
    ifIs(low, 'pass'),
    label('drop'),
    end(verdicts.drop),
    label('pass'),
    end(verdicts.next),
  ]);
}

/** RFC 826: both sender addresses must be the pod's. */
const arpSteps = (mac: MacWords, own: number): readonly Step[] => [
  label('arp'),
  frameLength,
  ifBelow(ip + 28, 'drop'),
  word(ip),
  unlessIs(0x0001_0800, 'drop'), // Ethernet, IPv4
  half(ip + 4),
  unlessIs(0x0604, 'drop'), // address lengths
  word(ip + 8),
  unlessIs(mac.high, 'drop'),
  half(ip + 12),
  unlessIs(mac.low, 'drop'),
  word(ip + 14),
  ifIs(own, 'pass'),
  goTo('drop'),
];

function ipv4Steps(own: number, rules: PortRules): readonly Step[] {
  const [source, destination] = [word(ip + 12), word(ip + 16)];
  return [
    label('ip4'),
    frameLength,
    ifBelow(payload4, 'drop'),
    source,
    unlessIs(own, 'drop'),
    byte(ip),
    ifIs(0x45, 'ip4 plain'),
    // Options move the ports. Messages that join a multicast group have one (RFC 2236).
    unlessIs(0x46, 'drop'),
    byte(ip + 9),
    ifIs(igmp, 'pass'),
    goTo('drop'),
    label('ip4 plain'),
    destination,
    masked(0xff00_0000),
    ifIs(0x7f00_0000, 'drop'),
    ...throughGateway4(rules),
    ...(rules.reachesMetadata
      ? []
      : [
          destination,
          ...metadata4.map((address) => ifIs(parsePrefix(address)?.base ?? 0, 'ip4 metadata')),
          masked(0xffff_0000),
          ifIs(0xa9fe_0000, 'ip4 metadata'),
        ]),
    byte(ip + 9),
    unlessIs(udp, 'pass'),
    half(ip + 6),
    ifAny(0x1fff, 'pass'), // a later fragment has no port
    frameLength,
    ifBelow(payload4 + 4, 'drop'),
    half(payload4),
    ifIs(dhcpServer, 'drop'),
    goTo('pass'),
    ...(rules.reachesMetadata
      ? []
      : [
          label('ip4 metadata'), // clouds have DNS there as well, which the node's resolv.conf may name
          half(ip + 6),
          ifAny(0x3fff, 'drop'),
          frameLength,
          ifBelow(payload4 + 4, 'drop'),
          byte(ip + 9),
          ifIs(udp, 'ip4 port'),
          unlessIs(tcp, 'drop'),
          label('ip4 port'),
          half(payload4 + 2),
          ifIs(dns, 'pass'),
          goTo('drop'),
        ]),
  ];
}

/**
 * Drops packets that go to a pod of the same network through the gateway: pods reach each other directly, and the node
 * would resolve each unused address until its neighbour table is full (`gc_thresh3`).
 */
function throughGateway4({ addresses, gateways, gatewayMac }: PortRules): readonly Step[] {
  const subnet = addresses.map(parsePrefix).find((each): each is Prefix => each !== undefined);
  const gateway = gateways.map(parsePrefix).find((each) => each !== undefined);
  if (subnet === undefined || subnet.bits >= 32 || gateway === undefined || gatewayMac === undefined) return [];
  return [
    word(ip + 16),
    ifIs(gateway.base, 'ip4 way'),
    masked(2 ** 32 - 2 ** (32 - subnet.bits)),
    unlessIs(subnet.base, 'ip4 way'),
    ...unlessTo(gatewayMac, 'ip4 way'),
    label('ip4 way'),
  ];
}

/** Drops a frame for that MAC. */
function unlessTo(mac: string, otherwise: string): readonly Step[] {
  const { high, low } = macOf(mac);
  return [word(0), unlessIs(high, otherwise), half(4), ifIs(low, 'drop')];
}

/** IPv6 extension headers that can hide another header: hop-by-hop, routing, destination, and rare ones. */
const hiding = [43, 51, 60, 135, 139, 140, 253, 254];
const [hopByHop, fragment] = [0, 44];
const [neighbourSolicitation, neighbourAdvertisement, routerAdvertisement, redirect] = [135, 136, 134, 137];
/** MLD reports (RFC 2710, RFC 3810), which follow a hop-by-hop header. */
const listenerReports = [131, 132, 143];

function ipv6Steps(own: readonly Ipv6Words[], rules: PortRules): readonly Step[] {
  return [
    label('ip6'),
    frameLength,
    ifBelow(payload6 + 8, 'drop'),
    ...ifOneOf(own, ip + 8, 'ip6 own', 'from'),
    ...ifOneOf([[0, 0, 0, 0]], ip + 8, 'ip6 unspecified', 'from unspecified'),
    goTo('drop'),
    label('ip6 unspecified'), // the unspecified address, during duplicate address detection
    byte(ip + 6),
    ifIs(hopByHop, 'ip6 listener'),
    unlessIs(icmp6, 'drop'),
    byte(payload6),
    unlessIs(neighbourSolicitation, 'drop'),
    goTo('ip6 target'),
    label('ip6 own'),
    byte(ip + 6),
    ifIs(icmp6, 'ip6 icmp'),
    ifIs(hopByHop, 'ip6 listener'),
    ...hiding.map((header) => ifIs(header, 'drop')),
    unlessIs(fragment, 'ip6 whole'),
    ...fragmentSteps,
    label('ip6 whole'),
    ...throughGateway6(rules),
    ...(rules.reachesMetadata ? [] : metadata6Steps),
    byte(ip + 6),
    unlessIs(udp, 'pass'),
    half(payload6),
    ifIs(dhcp6Server, 'drop'),
    goTo('pass'),
    label('ip6 listener'),
    frameLength,
    ifBelow(payload6 + 16, 'drop'),
    half(payload6),
    unlessIs(icmp6 * 256, 'drop'), // the hop-by-hop header is 8 bytes long
    byte(payload6 + 8),
    ...listenerReports.map((type) => ifIs(type, 'pass')),
    goTo('drop'),
    label('ip6 icmp'),
    byte(payload6),
    ifIs(routerAdvertisement, 'drop'),
    ifIs(redirect, 'drop'),
    ifIs(neighbourAdvertisement, 'ip6 target'),
    ifIs(neighbourSolicitation, 'pass'),
    goTo('ip6 way of icmp'),
    label('ip6 target'),
    frameLength,
    ifBelow(payload6 + 24, 'drop'),
    ...ifOneOf(own, payload6 + 8, 'pass', 'target'),
    goTo('drop'),
    label('ip6 way of icmp'),
    ...throughGateway6(rules, 'icmp'),
    goTo('pass'),
  ];
}

/**
 * Checks a first fragment as if it were whole. The node itself may reassemble fragments (`br_netfilter`) and send the
 * whole packet, so the receiving pod cannot see that it was fragmented. Neighbour discovery is never fragmented (RFC 6980).
 */
const fragmentSteps: readonly Step[] = [
  half(payload6 + 2),
  ifAny(0xfff8, 'ip6 whole'), // a later fragment, useless without the first
  frameLength,
  ifBelow(payload6 + 16, 'drop'),
  byte(payload6),
  ...[hopByHop, fragment, ...hiding].map((header) => ifIs(header, 'drop')),
  ifIs(icmp6, 'ip6 icmp in parts'),
  unlessIs(udp, 'ip6 whole'),
  half(payload6 + 8),
  ifIs(dhcp6Server, 'drop'),
  goTo('ip6 whole'),
  label('ip6 icmp in parts'),
  byte(payload6 + 8),
  ...[neighbourSolicitation, neighbourAdvertisement, routerAdvertisement, redirect].map((type) => ifIs(type, 'drop')),
];

const metadata6Steps: readonly Step[] = [
  ...ifOneOf(metadata6.map(ipv6Words), ip + 24, 'ip6 metadata', 'metadata'),
  word(ip + 24),
  masked(0xffc0_0000),
  unlessIs(0xfe80_0000, 'ip6 far'),
  label('ip6 metadata'),
  byte(ip + 6),
  ifIs(fragment, 'drop'),
  ifIs(udp, 'ip6 port'),
  unlessIs(tcp, 'drop'),
  label('ip6 port'),
  half(payload6 + 2),
  ifIs(dns, 'pass'),
  goTo('drop'),
  label('ip6 far'),
];

function throughGateway6({ addresses, gateways, gatewayMac }: PortRules, of = ''): readonly Step[] {
  const subnet = addresses.find((address) => address.endsWith('/64'));
  const gateway = gateways.find((address) => address.includes(':'));
  if (subnet === undefined || gateway === undefined || gatewayMac === undefined) return [];
  const [first, second] = ipv6Words(subnet);
  const way = `ip6 way${of}`;
  return [
    ...ifOneOf([ipv6Words(gateway)], ip + 24, way, `gateway${of}`),
    word(ip + 24),
    unlessIs(first, way),
    word(ip + 28),
    unlessIs(second, way),
    ...unlessTo(gatewayMac, way),
    label(way),
  ];
}

type Ipv6Words = ReturnType<typeof ipv6Words>;

/** Falls through when the address there is none of them. `name` must be unique in the program. */
function ifOneOf(addresses: readonly Ipv6Words[], at: number, yes: string, name: string): readonly Step[] {
  return addresses.flatMap(([a, b, c, d], index) => {
    const no = `${name}: not ${index}`;
    return [
      ...[word(at), unlessIs(a, no), word(at + 4), unlessIs(b, no), word(at + 8), unlessIs(c, no)],
      ...[word(at + 12), ifIs(d, yes), label(no)],
    ];
  });
}

interface MacWords {
  readonly high: number;
  readonly low: number;
}

function macOf(mac: string): MacWords {
  const hex = mac.replaceAll(':', '');
  return { high: Number.parseInt(hex.slice(0, 8), 16), low: Number.parseInt(hex.slice(8), 16) };
}

/** The link-local address that a guest's kernel derives from its MAC (RFC 4291, appendix A). */
function linkLocalOf(mac: string): Ipv6Words {
  const octets = mac.split(':').map((octet) => Number.parseInt(octet, 16));
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = octets;
  const join = (...four: readonly number[]) => four.reduce((sum, octet) => sum * 256 + octet, 0);
  return [0xfe80_0000, 0, join(a ^ 2, b, c, 0xff), join(0xfe, d, e, f)];
}
