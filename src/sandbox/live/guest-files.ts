import { isIP } from 'node:net';

/** Parsers of the files that a guest reports. Each takes what it knows and ignores the rest: the text may be anything. */

const maxNameservers = 3;
const maxNameChars = 200;

export interface ResolvConf {
  readonly nameservers: readonly string[];
  readonly searches: readonly string[];
}

/** Parses resolv.conf(5) as a pod's C library does: three servers, and the last list of domains. */
export function parsePodResolvConf(text: string): ResolvConf {
  const nameservers: string[] = [];
  let searches: readonly string[] = [];
  for (const line of text.split('\n')) {
    const [keyword, ...words] = line.trim().split(/\s+/);
    const [address = ''] = words;
    if (keyword === 'nameserver' && isIP(address) !== 0 && nameservers.length < maxNameservers)
      nameservers.push(address);
    if (keyword === 'search') searches = words.filter((word) => isName(word));
  }
  return { nameservers, searches };
}

const isName = (word: string): boolean =>
  word.length <= maxNameChars && word.split('.').every((label) => /^[A-Za-z0-9_-]{1,63}$/.test(label));

/** Addresses of the guest: IPv4's by /proc/net/fib_trie, IPv6's by /proc/net/if_inet6. */
export function localAddresses(fibTrie: string, ifInet6: string): ReadonlySet<string> {
  const four = [...fibTrie.matchAll(/\|-- (\d+\.\d+\.\d+\.\d+)\n\s+\/32 host LOCAL/g)].map(
    ([, address = '']) => address,
  );
  const six = [...ifInet6.matchAll(/^([0-9a-f]{32}) /gm)].map(([, hex = '']) => ipv6Of(hex));
  return new Set([...four, ...six].filter((address) => isIP(address) !== 0));
}

/** Gateways of the default routes (/proc/net/route, /proc/net/ipv6_route). */
export function defaultGateways(route: string, ipv6Route: string): readonly string[] {
  const four = route.split('\n').flatMap((line) => {
    const [, destination, gateway = '', , , , , mask] = line.trim().split(/\s+/);
    const isDefault = destination === '00000000' && mask === '00000000' && /^[0-9A-F]{8}$/.test(gateway);
    return isDefault && gateway !== '00000000' ? [ipv4Of(gateway)] : [];
  });
  const six = [...ipv6Route.matchAll(/^0{32} 00 0{32} 00 ([0-9a-f]{32}) (?!.* lo$)/gm)].map(([, hex = '']) => hex);
  return [...new Set([...four, ...six.filter((hex) => !/^0+$/.test(hex)).map(ipv6Of)])].slice(0, 2);
}

/** Whether a neighbour has answered ARP, by the flag of a complete entry in the kernel's table. Undefined without an entry. */
export function hasAnsweredArp(table: string, address: string): boolean | undefined {
  for (const line of table.split('\n')) {
    const [ip, , flags] = line.trim().split(/\s+/);
    if (ip === address) return (Number(flags) & 0x2) !== 0;
  }
  return undefined;
}

/** Share of the last 10 s, in percent, in which some tasks waited (Documentation/accounting/psi.rst). */
export function recentPressure(text: string): number | undefined {
  const percent = Number(/^some avg10=(\d+\.\d+) /m.exec(text)?.[1]);
  return percent <= 100 ? percent : undefined;
}

/** The kernel writes the word in the machine's byte order, which is little-endian. */
const ipv4Of = (hex: string): string => [...Buffer.from(hex, 'hex').toReversed()].join('.');

const ipv6Of = (hex: string): string =>
  new URL(`http://[${hex.match(/.{4}/g)?.join(':') ?? '::'}]`).hostname.slice(1, -1);
