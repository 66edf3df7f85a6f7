import { readFileIfThere } from '#host/file/files.ts';
import type { GuestDns } from './network.ts';

/** glibc's own limits (resolv.conf(5)), with room. */
const maxNameservers = 3;
const maxSearches = 32;
const maxFileChars = 64 * 1024;

/** The second is systemd-resolved's list of the real servers, for when the first names only its stub on loopback. */
export const resolvConfPaths = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'] as const;

/**
 * The node's DNS as a pod can use it: from the first file that names a server that is not on loopback. Has no nameserver
 * when there is no such file.
 */
export async function readNodeDns(): Promise<GuestDns> {
  let last: GuestDns = { nameservers: [], searches: [], options: [] };
  for (const path of resolvConfPaths) {
    const text = await readFileIfThere(path);
    if (text === undefined) continue;
    const dns = parseResolvConf(text);
    if (dns.nameservers.length > 0) return dns;
    last = dns;
  }
  return last;
}

/** Parses resolv.conf(5), without servers that another network namespace cannot reach. */
export function parseResolvConf(text: string): GuestDns {
  const nameservers: string[] = [];
  let searches: string[] = [];
  const options: string[] = [];
  for (const line of text.slice(0, maxFileChars).split('\n')) {
    const [keyword, ...words] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (keyword === 'nameserver' && words[0] !== undefined && isReachable(words[0])) nameservers.push(words[0]);
    if (keyword === 'search' || keyword === 'domain') searches = words;
    if (keyword === 'options') options.push(...words);
  }
  return {
    nameservers: [...new Set(nameservers)].slice(0, maxNameservers),
    searches: searches.filter((search) => search !== '.').slice(0, maxSearches),
    options: options.filter((option) => option !== 'trust-ad').slice(0, maxSearches),
  };
}

/** False for loopback, unspecified (the node itself), and link-local with a zone of this node. */
function isReachable(address: string): boolean {
  if (!/^[0-9a-f.:]+$/i.test(address)) return false;
  return !/^(127\.|0\.0\.0\.0$|::1$|::$|::ffff:127\.|fe80:)/i.test(address);
}
