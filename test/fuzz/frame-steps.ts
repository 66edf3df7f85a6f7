import fc from 'fast-check';
import * as v from 'valibot';

/**
 * Frames that a guest sends, described by their fields. Hosts are named by words, since addresses are known later.
 * Bytes of the whole frame may be changed, or missing.
 */
const who = v.picklist([
  'attacker',
  'victim',
  'gateway',
  'stranger',
  'all',
  'nobody',
  'loopback',
  'metadata',
  'outside',
]);
export type Who = v.InferOutput<typeof who>;
const number = v.number();
const frameSchema = v.object({
  to: who,
  from: who,
  /** Type and tag of each VLAN header. */
  tags: v.array(v.tuple([number, number])),
  type: number,
  source: who,
  target: who,
  /** In ARP the operation, in ICMPv6 the type. */
  kind: number,
  /** Owner of the address that the sender of ARP, or an advertisement, claims. */
  claimed: who,
  claimedMac: who,
  protocol: number,
  ports: v.tuple([number, number]),
  /** IPv4: flags and offset. */
  fragment: number,
  /** IPv4: bytes of options, a multiple of 4. */
  options: number,
  /** IPv6: headers between the first and the payload. */
  headers: v.array(number),
  bytes: number,
  changes: v.array(v.tuple([number, number])),
  cut: number,
});
export type Frame = v.InferOutput<typeof frameSchema>;
export const framesSchema = v.array(frameSchema);

export interface Address {
  readonly mac: Buffer;
  readonly ip4: Buffer;
  readonly ip6: Buffer;
  readonly local6: Buffer;
}
export type Addresses = Readonly<Record<Who, Address>>;

export const types = { ip4: 0x0800, arp: 0x0806, ip6: 0x86dd } as const;
const whos = who.options;
const mostly = <T>(usual: readonly T[], all: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...usual) }, { weight: 1, arbitrary: all });
const anyone = fc.constantFrom(...whos);

const frame: fc.Arbitrary<Frame> = fc.record({
  to: mostly<Who>(['victim', 'all', 'gateway'], anyone),
  from: mostly<Who>(['attacker'], anyone),
  tags: fc.oneof(
    { weight: 12, arbitrary: fc.constant<[number, number][]>([]) },
    {
      weight: 1,
      arbitrary: fc.array(
        fc.tuple(fc.constantFrom<number[]>(0x8100, 0x88a8, 0x9100), fc.constantFrom<number[]>(0, 1, 100, 0x6001)),
        {
          minLength: 1,
          maxLength: 3,
        },
      ),
    },
  ),
  type: mostly<number>(
    [types.ip4, types.arp, types.ip6, types.ip6],
    fc.oneof(fc.constantFrom(0x88cc, 0x888e, 0x8863, 0x8847, 0x0026, 0x88f7), fc.nat(0xffff)),
  ),
  source: mostly<Who>(['attacker'], anyone),
  target: mostly<Who>(['victim', 'all', 'gateway'], anyone),
  kind: mostly([1, 2, 128, 133, 134, 135, 136, 137, 143], fc.nat(255)),
  claimed: mostly<Who>(['attacker', 'victim', 'gateway'], anyone),
  claimedMac: mostly<Who>(['attacker'], anyone),
  protocol: mostly([6, 17, 58], fc.constantFrom(0, 1, 2, 4, 41, 47, 50, 51, 132, 255)),
  ports: fc.tuple(mostly([40_000, 67, 547, 53], fc.nat(65_535)), mostly([80, 68, 546, 53], fc.nat(65_535))),
  fragment: mostly([0, 0, 0x2000, 0x4000], fc.constantFrom(1, 0x2001, 0x1fff, 0x8000)),
  options: mostly([0, 0, 0], fc.constantFrom(4, 8, 40)),
  headers: mostly<number[]>(
    [[], [], [], [44]],
    fc.array(fc.constantFrom(0, 43, 44, 51, 60, 135, 139, 140, 253), { maxLength: 3 }),
  ),
  bytes: fc.constantFrom(0, 8, 24, 32, 200),
  changes: fc.oneof(
    { weight: 6, arbitrary: fc.constant<[number, number][]>([]) },
    { weight: 1, arbitrary: fc.array(fc.tuple(fc.integer({ min: 12, max: 90 }), fc.nat(255)), { maxLength: 3 }) },
  ),
  cut: mostly([0, 0, 0], fc.nat(80)),
});

export const frames: fc.Arbitrary<readonly Frame[]> = fc.array(frame, { minLength: 1, maxLength: 60, size: 'max' });

const halves = (...values: readonly number[]) => {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [at, value] of values.entries()) bytes.writeUInt16BE(value & 0xffff, 2 * at);
  return bytes;
};

export function encode(frame: Frame, addresses: Addresses): Buffer {
  const tags = frame.tags.flatMap(([type, tag]) => [halves(type, tag)]);
  const head = [addresses[frame.to].mac, addresses[frame.from].mac, ...tags, halves(frame.type)];
  const whole = Buffer.concat([...head, bodyOf(frame, addresses)]);
  for (const [at, value] of frame.changes) if (at < whole.length) whole[at] = value;
  return whole.subarray(0, Math.max(14, whole.length - frame.cut));
}

function bodyOf(frame: Frame, addresses: Addresses): Buffer {
  switch (frame.type) {
    case types.arp: {
      const { claimed, claimedMac, target, kind } = frame;
      const sender = [addresses[claimedMac].mac, addresses[claimed].ip4];
      return Buffer.concat([halves(1, 0x0800, 0x0604, kind), ...sender, addresses[target].mac, addresses[target].ip4]);
    }
    case types.ip4:
      return ip4(frame, addresses);
    case types.ip6:
      return ip6(frame, addresses);
    default:
      return Buffer.alloc(Math.max(46, frame.bytes), 0x61);
  }
}

function ip4(frame: Frame, addresses: Addresses): Buffer {
  const { options, ports, protocol, fragment, bytes, source, target } = frame;
  const payload = Buffer.concat([halves(...ports, 8 + bytes, 0), Buffer.alloc(bytes)]);
  const header = Buffer.alloc(20 + options, 1);
  halves(0x4500 + (options << 6), header.length + payload.length, 1, fragment).copy(header);
  header.set([64, protocol, 0, 0], 8);
  addresses[source].ip4.copy(header, 12);
  addresses[target].ip4.copy(header, 16);
  header.writeUInt16BE(sumOf(header), 10);
  return Buffer.concat([header, payload]);
}

/** Checksum of RFC 1071. */
function sumOf(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

function ip6(frame: Frame, addresses: Addresses): Buffer {
  const { headers, protocol, source, target, kind, claimed, claimedMac, ports, bytes, fragment } = frame;
  const claims = Buffer.concat([addresses[claimed].local6, Buffer.from([2, 1]), addresses[claimedMac].mac]);
  const last =
    protocol === 58
      ? Buffer.concat([Buffer.from([kind, 0, 0, 0, 0x20, 0, 0, 0]), claims])
      : Buffer.concat([halves(...ports, 8 + bytes, 0), Buffer.alloc(bytes)]);
  const next = [...headers.slice(1), protocol];
  const between = headers.map((header, at) =>
    header === 44
      ? Buffer.concat([Buffer.from([next[at] ?? 59, 0]), halves(fragment & 0xfff9), Buffer.from([0, 0, 0, 1])])
      : Buffer.from([next[at] ?? 59, 0, 5, 2, 0, 0, 1, 0]),
  );
  const payload = Buffer.concat([...between, last]);
  const { ip6: global, local6 } = addresses[source];
  const from = protocol === 58 && source === 'attacker' ? local6 : global;
  const start = Buffer.from([0x60, 0, 0, 0, 0, 0, headers[0] ?? protocol, 255]);
  start.writeUInt16BE(payload.length, 4);
  return Buffer.concat([start, from, addresses[target].ip6, payload]);
}
