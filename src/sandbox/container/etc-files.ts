import { isIPv4 } from 'node:net';
import type { SandboxSpec } from '../sandbox.ts';

interface Dns {
  readonly nameservers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

/** kubelet's limits (ValidateDNSConfig): more are left out, since resolvers ignore them. */
const maxNameservers = 3;
const maxSearches = 32;

/** The pod's /etc/resolv.conf. `ClusterFirst` without a cluster is `Default`: the network's or the node's servers. */
export function resolvConfOf(spec: Pick<SandboxSpec, 'dns'>, network: Dns): string {
  const { dns } = spec;
  const base: Dns = dns.policy === 'None' ? { nameservers: [], searches: [], options: [] } : network;
  const nameservers = unique([...base.nameservers, ...dns.nameservers]).slice(0, maxNameservers);
  const searches = unique([...base.searches, ...dns.searches]).slice(0, maxSearches);
  const options = mergeOptions(base.options, dns.options);
  return [
    ...nameservers.map((server) => `nameserver ${server}\n`),
    searches.length > 0 ? `search ${searches.join(' ')}\n` : '',
    options.length > 0 ? `options ${options.join(' ')}\n` : '',
  ].join('');
}

/** The pod's /etc/hosts, as kubelet writes it. `addresses` have prefix lengths, as in `10.1.0.5/24`. */
export function etcHostsOf(
  { hostname, names = [hostname], hostAliases }: Pick<SandboxSpec, 'hostname' | 'names' | 'hostAliases'>,
  addresses: readonly string[],
): string {
  const own = addresses.map((address) => address.split('/')[0] ?? '');
  return [
    '# Kubernetes-managed hosts file.\n',
    '127.0.0.1\tlocalhost\n',
    '::1\tlocalhost ip6-localhost ip6-loopback\n',
    'fe00::0\tip6-localnet\n',
    'fe00::0\tip6-mcastprefix\n',
    'fe00::1\tip6-allnodes\n',
    'fe00::2\tip6-allrouters\n',
    ...(own.length > 0 ? own : ['127.0.0.1']).map((address) => `${address}\t${names.join('\t')}\n`),
    ...hostAliases.map(({ ip, hostnames }) => `${ip}\t${hostnames.join('\t')}\n`),
  ].join('');
}

/** Plain addresses, IPv4 first, for a status. */
export function plainAddresses(addresses: readonly string[]): readonly string[] {
  const plain = addresses.map((address) => address.split('/')[0] ?? '');
  return [...plain.filter((address) => isIPv4(address)), ...plain.filter((address) => !isIPv4(address))];
}

const unique = (texts: readonly string[]) => [...new Set(texts)];

/** The pod's option replaces the network's of the same name (`ndots:2` and `ndots:5`). */
function mergeOptions(base: readonly string[], own: readonly string[]): readonly string[] {
  const byName = new Map([...base, ...own].map((option) => [option.split(':')[0], option]));
  return [...byName.values()];
}
