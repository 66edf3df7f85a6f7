/** IPv4 prefixes as numbers, to find a subnet that does not overlap the node's. */
export interface Prefix {
  /** First address, as an unsigned 32-bit number. */
  readonly base: number;
  /** Prefix length, 0 to 32. */
  readonly bits: number;
}

/** Reads `10.0.0.0/8` or a plain address (32 bits); undefined for anything else, such as IPv6. */
export function parsePrefix(text: string): Prefix | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(text);
  if (!match) return undefined;
  const octets = match.slice(1, 5).map(Number);
  const bits = match[5] === undefined ? 32 : Number(match[5]);
  if (octets.some((octet) => octet > 255) || bits > 32) return undefined;
  return {
    base: first(
      octets.reduce((sum, octet) => sum * 256 + octet, 0),
      bits,
    ),
    bits,
  };
}

export function overlaps(a: Prefix, b: Prefix): boolean {
  const bits = Math.min(a.bits, b.bits);
  return first(a.base, bits) === first(b.base, bits);
}

function first(address: number, bits: number): number {
  const size = 2 ** (32 - bits);
  return Math.floor(address / size) * size;
}
