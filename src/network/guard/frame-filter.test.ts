import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { frameFilter, noLoopback, ownFramesOnly, type PortRules } from './frame-filter.ts';
import { verdicts, type Instruction } from './packet-program.ts';

const mac = '02:11:22:33:44:55';
const otherMac = '02:11:22:33:44:66';
const gatewayMac = '06:00:00:00:00:01';
const own6 = 'fd5e:8a01:77c2:0:0:0:0:5';
const ownLocal = 'fe80:0:0:0:11:22ff:fe33:4455';
const [other6, nobody6, all6] = ['fd5e:8a01:77c2:0:0:0:0:6', '0:0:0:0:0:0:0:0', 'ff02:0:0:0:0:0:0:1'];
const rules: PortRules = {
  mac,
  addresses: ['10.86.0.5/20', 'fd5e:8a01:77c2::5/64'],
  gateways: ['10.86.0.1', 'fd5e:8a01:77c2::1'],
  gatewayMac,
  reachesMetadata: false,
};

/** Runs the instructions that we use as the kernel does (net/core/filter.c); test/vm checks the kernel itself. */
function verdictOn(program: readonly Instruction[], frame: Buffer, hasTag = false): number {
  let a = 0;
  for (let at = 0; at < program.length; at += 1) {
    const { code, jt, jf, k } = program[at] ?? assert.fail('beyond the program');
    const jumpIf = (is: boolean) => (at += is ? jt : jf);
    const load = (size: number) => (k + size <= frame.length ? frame.readUIntBE(k, size) : undefined);
    if (code === 0x06) return k;
    if (code === 0x05) at += k;
    else if (code === 0x15) jumpIf(a === k);
    else if (code === 0x35) jumpIf(a >= k);
    else if (code === 0x45) jumpIf((a & k) !== 0);
    else if (code === 0x54) a = (a & k) >>> 0;
    else if (code === 0x80) a = frame.length;
    else if (k >= 0xffff_f000) a = hasTag ? 1 : 0;
    else {
      const found = load({ 0x20: 4, 0x28: 2, 0x30: 1 }[code] ?? assert.fail(`code ${code}`));
      if (found === undefined) return 0; // the kernel would accept the frame
      a = found;
    }
  }
  return assert.fail('no verdict');
}

const hex = (text: string) => Buffer.from(text.replaceAll(/[: ]/g, ''), 'hex');
const address4 = (text: string) => Buffer.from(text.split('.').map(Number));
const address6 = (text: string) =>
  Buffer.concat(text.split(':').map((group) => Buffer.from(group.padStart(4, '0'), 'hex')));
const ethernet = (type: string, payload: Buffer, { from = mac, to = 'ff:ff:ff:ff:ff:ff' } = {}) =>
  Buffer.concat([hex(to), hex(from), hex(type), payload]);

interface Ipv4 {
  readonly from?: string;
  readonly to?: string;
  readonly protocol?: number;
  readonly ports?: readonly [number, number];
  readonly fragment?: number;
  readonly options?: string;
}
function ipv4(packet: Ipv4 = {}): Buffer {
  const {
    from = '10.86.0.5',
    to = '192.0.2.1',
    protocol = 6,
    ports = [40_000, 80],
    fragment = 0,
    options = '',
  } = packet;
  const header = Buffer.alloc(20);
  header[0] = 0x45 + hex(options).length / 4;
  header.writeUInt16BE(fragment, 6);
  header[9] = protocol;
  const payload = Buffer.alloc(8);
  ports.forEach((port, index) => payload.writeUInt16BE(port, index * 2));
  address4(from).copy(header, 12);
  address4(to).copy(header, 16);
  return Buffer.concat([header, hex(options), payload]);
}

function arp(senderMac: string, sender: string): Buffer {
  return Buffer.concat([
    hex('0001 0800 0604 0002'),
    hex(senderMac),
    address4(sender),
    hex(otherMac),
    address4('10.86.0.1'),
  ]);
}

function ipv6(from: string, to: string, next: number, payload: Buffer): Buffer {
  return Buffer.concat([
    hex('60000000'),
    Buffer.from([0, payload.length, next, 255]),
    address6(from),
    address6(to),
    payload,
  ]);
}
const icmp6 = (type: number, target = nobody6) =>
  Buffer.concat([Buffer.from([type, 0, 0, 0, 0, 0, 0, 0]), address6(target)]);
const ports = (source: number, destination: number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16BE(source, 0);
  bytes.writeUInt16BE(destination, 2);
  return bytes;
};
const behind = (next: number, payload: Buffer) => Buffer.concat([Buffer.from([next, 0, 5, 2, 0, 0, 1, 0]), payload]);

/** Offset and flag as in RFC 8200: the lowest bit says that more fragments follow. */
const inFragment = (next: number, offset: number, payload: Buffer) =>
  Buffer.concat([Buffer.from([next, 0, offset >> 8, offset & 0xff, 0, 0, 0, 1]), payload]);

const v4 = (packet?: Ipv4, way = {}) => ethernet('0800', ipv4(packet), way);
const v6 = (from: string, to: string, next: number, payload: Buffer, way = {}) =>
  ethernet('86dd', ipv6(from, to, next, payload), way);

describe('frameFilter()', () => {
  const honest: Readonly<Record<string, Buffer>> = {
    'a packet of its own': v4(),
    'a question for an address': ethernet('0806', arp(mac, '10.86.0.5')),
    'a later fragment that looks like DHCP': v4({ protocol: 17, ports: [67, 68], fragment: 0x00b9 }),
    'a question of DHCP, of its own address': v4({ protocol: 17, ports: [68, 67] }),
    'a report of IGMP': v4({ protocol: 2, options: '94040000', to: '224.0.0.22' }),
    'a name looked up at a link-local server': v4({ protocol: 17, to: '169.254.169.253', ports: [40_000, 53] }),
    'the same by TCP': v4({ to: '169.254.20.10', ports: [40_000, 53] }),
    'a packet to another pod': v4({ to: '10.86.0.6' }, { to: otherMac }),
    'a packet to the gateway itself': v4({ to: '10.86.0.1' }, { to: gatewayMac }),
    'a packet that leaves by the gateway': v4({}, { to: gatewayMac }),
    'a packet of IPv6': v6(own6, other6, 6, ports(1, 2), { to: otherMac }),
    'a packet that leaves by the gateway of IPv6': v6(own6, '2001:db8:0:0:0:0:0:1', 6, ports(1, 2), { to: gatewayMac }),
    'a packet to that gateway': v6(own6, 'fd5e:8a01:77c2:0:0:0:0:1', 6, ports(1, 2), { to: gatewayMac }),
    'an echo to that gateway': v6(own6, 'fd5e:8a01:77c2:0:0:0:0:1', 58, icmp6(128), { to: gatewayMac }),
    'an advertisement of its own address': v6(own6, all6, 58, icmp6(136, own6)),
    'an advertisement of its link-local address': v6(ownLocal, all6, 58, icmp6(136, ownLocal)),
    'a solicitation': v6(own6, all6, 58, icmp6(135, other6)),
    'a search for the double of its address': v6(nobody6, all6, 58, icmp6(135, ownLocal)),
    'a solicitation of routers': v6(ownLocal, all6, 58, icmp6(133)),
    'a report of MLD': v6(nobody6, all6, 0, behind(58, icmp6(143))),
    'the first fragment of an echo': v6(own6, other6, 44, inFragment(58, 0x0001, icmp6(128)), { to: otherMac }),
    'a fragment of a packet that is whole': v6(own6, other6, 44, inFragment(17, 0, ports(40_000, 53)), {
      to: otherMac,
    }),
    'a later fragment that looks like an advertisement': v6(
      own6,
      other6,
      44,
      inFragment(58, 0x00b8, icmp6(136, other6)),
    ),
    'a name looked up at a link-local address': v6(own6, 'fe80:0:0:0:0:0:0:1', 17, ports(40_000, 53)),
  };
  for (const [what, frame] of Object.entries(honest)) {
    test(`leaves ${what} to the next filter`, () => assert.equal(verdictOn(frameFilter(rules), frame), verdicts.next));
  }

  const lies: Readonly<Record<string, Buffer>> = {
    'another MAC': v4({}, { from: otherMac }),
    'another address': v4({ from: '10.86.0.6' }),
    'the address of loopback': v4({ from: '127.0.0.1' }),
    'no address': v4({ from: '0.0.0.0', protocol: 17, ports: [68, 67] }),
    'an ARP answer for another': ethernet('0806', arp(mac, '10.86.0.1')),
    'an ARP answer with another MAC': ethernet('0806', arp(otherMac, '10.86.0.5')),
    'an ARP packet that is cut': ethernet('0806', arp(mac, '10.86.0.5').subarray(0, 16)),
    'an answer of DHCP': v4({ protocol: 17, ports: [67, 68] }),
    'an answer of DHCP behind options': v4({ protocol: 17, ports: [67, 68], options: '01010101' }),
    'an address of loopback as its aim': v4({ to: '127.0.0.1' }, { to: gatewayMac }),
    'metadata as its aim': v4({ to: '169.254.169.254' }),
    'metadata of Azure': v4({ to: '168.63.129.16' }),
    'a fragment to metadata': v4({ to: '169.254.169.254', ports: [0, 53], fragment: 0x2000 }),
    'another pod by the gateway': v4({ to: '10.86.0.6' }, { to: gatewayMac }),
    'a frame for the spanning tree': ethernet('0026', Buffer.alloc(46), { to: '01:80:c2:00:00:00' }),
    'another protocol': ethernet('88b5', Buffer.alloc(46)),
    'a tag within a tag': ethernet('8100', Buffer.alloc(46)),
    'a header that is cut': ethernet('0800', ipv4().subarray(0, 12)),
    'a router advertisement': v6(ownLocal, all6, 58, icmp6(134)),
    'a redirect': v6(ownLocal, all6, 58, icmp6(137)),
    'an advertisement of another address': v6(ownLocal, all6, 58, icmp6(136, other6)),
    'the denial of an address that another looks for': v6(nobody6, all6, 58, icmp6(135, other6)),
    'a router advertisement behind a header': v6(ownLocal, all6, 0, behind(58, icmp6(134))),
    'an advertisement behind destination options': v6(ownLocal, all6, 60, behind(58, icmp6(136, other6))),
    'an advertisement in a fragment': v6(own6, own6, 44, inFragment(58, 0, icmp6(136, other6))),
    'a router advertisement in a first fragment': v6(own6, own6, 44, inFragment(58, 0x0001, icmp6(134))),
    'a redirect in a fragment': v6(own6, own6, 44, inFragment(58, 0, icmp6(137))),
    'an answer of DHCPv6 in a fragment': v6(own6, all6, 44, inFragment(17, 0, ports(547, 546))),
    'an advertisement behind options in a fragment': v6(
      own6,
      all6,
      44,
      inFragment(60, 0, behind(58, icmp6(136, other6))),
    ),
    'a fragment that is cut before its ports': v6(own6, all6, 44, inFragment(17, 0, ports(547, 546)).subarray(0, 12)),
    'another address of IPv6': v6(other6, all6, 6, ports(1, 2)),
    'no address with a packet': v6(nobody6, all6, 17, ports(1, 2)),
    'an answer of DHCPv6': v6(own6, all6, 17, ports(547, 546)),
    'a service at a link-local address': v6(own6, 'fe80:0:0:0:0:0:0:1', 6, ports(40_000, 80)),
    'metadata of Amazon by IPv6': v6(own6, 'fd00:ec2:0:0:0:0:0:254', 6, ports(40_000, 80)),
    'another pod by the gateway of IPv6': v6(own6, other6, 6, ports(1, 2), { to: gatewayMac }),
    'an echo to another pod by that gateway': v6(own6, other6, 58, icmp6(128), { to: gatewayMac }),
  };
  for (const [what, frame] of Object.entries(lies)) {
    test(`drops ${what}`, () => assert.equal(verdictOn(frameFilter(rules), frame), verdicts.drop));
  }

  test('drops frames with a VLAN tag, which the kernel keeps outside of the frame', () => {
    assert.equal(verdictOn(frameFilter(rules), v4(), true), verdicts.drop);
  });

  test('allows metadata services only to pods that ask for them, and no forged frames', () => {
    const open = frameFilter({ ...rules, reachesMetadata: true });
    for (const what of ['metadata as its aim', 'a service at a link-local address', 'metadata of Azure'])
      assert.equal(verdictOn(open, lies[what] ?? assert.fail()), verdicts.next, what);
    for (const what of ['another address', 'a router advertisement', 'an address of loopback as its aim'])
      assert.equal(verdictOn(open, lies[what] ?? assert.fail()), verdicts.drop, what);
  });

  test('passes no truncated frame', () => {
    for (const frame of [...Object.values(honest), ...Object.values(lies)])
      for (let length = 0; length < frame.length; length += 1)
        assert.notEqual(verdictOn(frameFilter(rules), frame.subarray(0, length)), 0, frame.toString('hex', 0, length));
  });

  test('passes only link-local IPv6 frames of a pod without IPv6', () => {
    const only4 = frameFilter({ ...rules, addresses: ['10.86.0.5/20'], gateways: ['10.86.0.1'] });
    assert.equal(verdictOn(only4, v6(own6, other6, 6, ports(1, 2))), verdicts.drop);
    assert.equal(verdictOn(only4, v6(ownLocal, all6, 58, icmp6(133))), verdicts.next);
    assert.equal(verdictOn(only4, v4()), verdicts.next);
  });
});

test('ownFramesOnly() drops frames for others that a bridge floods', () => {
  const program = ownFramesOnly(mac);
  assert.equal(verdictOn(program, v4({}, { to: mac })), verdicts.next);
  assert.equal(verdictOn(program, v4({}, { to: 'ff:ff:ff:ff:ff:ff' })), verdicts.next);
  assert.equal(verdictOn(program, v4({}, { to: '33:33:00:00:00:01' })), verdicts.next);
  assert.equal(verdictOn(program, v4({}, { to: otherMac })), verdicts.drop);
});

test('noLoopback drops packets to and from loopback addresses, and nothing else', () => {
  for (const lie of [
    v4({ to: '127.0.0.1' }),
    v4({ from: '127.255.0.9' }),
    v4({ to: '127.1.2.3', options: '01010101' }),
  ])
    assert.equal(verdictOn(noLoopback, lie), verdicts.drop);
  const others = [
    ...[v4(), v4({ from: '10.9.9.9' }, { from: otherMac }), v4({ to: '128.0.0.1' }), v4({ to: '126.255.255.255' })],
    ...[ethernet('0806', arp(mac, '127.0.0.1')), v6(own6, other6, 6, ports(1, 2)), ethernet('88b5', Buffer.alloc(46))],
    ...[ethernet('0800', ipv4({ to: '127.0.0.1' }).subarray(0, 18)), Buffer.alloc(3), Buffer.alloc(0)],
  ];
  for (const frame of others) assert.equal(verdictOn(noLoopback, frame), verdicts.next);
});
