import { readFileIfThere } from '#host/file/files.ts';
import type { Route } from './ip-command.ts';
import type { NatRules } from './node-facts.ts';

/** Whether pods of the default network can have IPv6 too. */
export interface Ipv6 {
  readonly isUsable: boolean;
  /** Whether the node's firewall accepts forwarded packets. */
  readonly accepts: boolean;
}

const none: Ipv6 = { isUsable: false, accepts: false };

/**
 * Usable where the node itself has an IPv6 default route, forwards IPv6 or may be made to, and has NAT for it, since pods'
 * addresses are private. A node whose default route comes from router advertisements would lose it by forwarding (kernel,
 * ip-sysctl: `accept_ra` is off while forwarding), so pods use only IPv4 there.
 */
export async function readIpv6(routes: readonly Route[], rules: NatRules | undefined): Promise<Ipv6> {
  const [isDisabled, forwarding] = await Promise.all(
    ['disable_ipv6', 'forwarding'].map((name) => readFileIfThere(`/proc/sys/net/ipv6/conf/all/${name}`)),
  );
  if (isDisabled?.trim() !== '0' || !leadsOut(routes, forwarding?.trim() === '1')) return none;
  return rules === undefined ? none : { isUsable: true, accepts: rules.accepts }; // pods work without IPv6
}

/** Whether an IPv6 default route remains when the node forwards. */
export function leadsOut(routes: readonly Route[], isForwarding: boolean): boolean {
  const ways = routes.filter(({ dst, gateway, dev, type }) => {
    const isUnicast = (type ?? 'unicast') === 'unicast' && dev !== 'lo';
    return isUnicast && (dst === '::/0' || (dst === 'default' && (gateway ?? '').includes(':')));
  });
  return ways.length > 0 && (isForwarding || ways.every(({ protocol }) => protocol !== 'ra'));
}

/** A /64 of RFC 4193: 40 random bits, so that two networks do not collide. */
export function randomUniqueLocal(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(5));
  const hex = (from: number) => ((bytes[from] ?? 0) * 256 + (bytes[from + 1] ?? 0)).toString(16);
  return `fd${(bytes[0] ?? 0).toString(16).padStart(2, '0')}:${hex(1)}:${hex(3)}::/64`;
}

/** An address, with or without a prefix length, as four words of 32 bits. */
export function ipv6Words(text: string): readonly [number, number, number, number] {
  const [before = '', after] = text.replace(/\/\d+$/, '').split('::');
  const groups = (part = '') => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  const [head, tail] = [groups(before), groups(after)];
  const all = [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => 0), ...tail];
  const at = (index: number) => (all[index * 2] ?? 0) * 65_536 + (all[index * 2 + 1] ?? 0);
  return [at(0), at(1), at(2), at(3)];
}
