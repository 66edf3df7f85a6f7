import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { replaceFile } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import type { BuiltInBridge } from '../network.ts';
import type { ServedService, ServiceTarget } from '#base/served-services.ts';

/** Port of the DNS server on the address of the bridge. */
export const dnsPort = 10_053;
/** Address of the DNS server as pods see it. */
export const dnsAddress = '10.196.0.10';

/**
 * What one pod may ask the DNS server, so that it does not use up the server for others: a question to the servers of the
 * node waits 10 s at most. Connections over TCP have a process each, of 20.
 */
const askedOfPod = { perSecond: 100, atOnce: 200, connections: 2 } as const;
const timeoutMs = 10_000;
const families = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const;

export const tableOf = (bridge: string): string => `services_${bridge}`;

/**
 * The nftables table that leads addresses of Services to pods, for packets from the bridge. What `portmap` has led to a pod
 * already is not looked at. Sources are masqueraded by the rule `back` of `masquerade.ts`, so that answers return this way.
 */
export function rulesOf({ bridge, gateway }: BuiltInBridge, services: readonly ServedService[]): string {
  const { perSecond, atOnce, connections } = askedOfPod;
  const addresses = [dnsAddress, ...services.map(({ address }) => address)];
  const rules = services.flatMap(({ address, ports }) =>
    ports.flatMap(({ protocol, port, targets }) =>
      targets.length === 0
        ? []
        : [`ip daddr ${address} ${families[protocol]} dport ${port} dnat ip ${toOneOf(targets)}`],
    ),
  );
  return `  set addresses { type ipv4_addr; elements = { ${[...new Set(addresses)].join(', ')} } }
  chain translate {
    type nat hook prerouting priority -101; policy accept;
    iifname != "${bridge}" accept
    ip daddr ${dnsAddress} udp dport 53 dnat ip to ${gateway}:${dnsPort}
    ip daddr ${dnsAddress} tcp dport 53 dnat ip to ${gateway}:${dnsPort}
${rules.map((rule) => `    ${rule}\n`).join('')}  }
  chain refused {
    type filter hook forward priority -1; policy accept;
    iifname != "${bridge}" accept
    ip daddr @addresses meta l4proto tcp reject with tcp reset
    ip daddr @addresses reject with icmp type port-unreachable
  }
  set asking { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
  set connected { type ipv4_addr; size 65535; flags dynamic; }
  chain own {
    type filter hook input priority -11; policy accept;
    iifname != { "${bridge}", "lo" } ip daddr ${gateway} meta l4proto { tcp, udp } th dport ${dnsPort} drop
    iifname != "${bridge}" accept
    ip daddr ${gateway} udp dport ${dnsPort} update @asking { ip saddr limit rate over ${perSecond}/second burst ${atOnce} packets } drop
    ip daddr ${gateway} tcp dport ${dnsPort} ct state new add @connected { ip saddr ct count over ${connections} } reject with tcp reset
  }
`;
}

function toOneOf(targets: readonly ServiceTarget[]): string {
  const [first] = targets;
  if (targets.length === 1 && first !== undefined) return `to ${first.address}:${first.port}`;
  const places = targets.map(({ address, port }, at) => `${at} : ${address} . ${port}`);
  return `addr . port to numgen random mod ${targets.length} map { ${places.join(', ')} }`;
}

/** The file with the rules that were set last; there is none when they have been removed. */
export const rulesFile = (directory: string): string => join(directory, 'rules.nft');

/**
 * Replaces the table in one step. `directory` is for a file: an argument has at most 128 KiB, and nft takes no socket as
 * standard input (`node-guard.ts`). Errors: `failedPrecondition`.
 */
export async function setRules(
  { bridge, directory }: { readonly bridge: string; readonly directory: string },
  rules: string,
  signal: AbortSignal,
): Promise<void> {
  const table = `table inet ${tableOf(bridge)}`;
  const file = rulesFile(directory);
  try {
    await mkdir(directory, { recursive: true, mode: 0o711 });
    // The first line makes the table, so that the second can always delete it.
    await replaceFile(file, `${table}\ndelete ${table}\n${table} {\n${rules}}\n`);
    await run('nft', ['-f', file], { signal, timeoutMs });
  } catch (cause) {
    signal.throwIfAborted();
    throw new PodvmError('failedPrecondition', `Cannot lead Services to pods: ${messageOf(cause)}`, {
      cause,
      fix: 'Install the Debian package nftables; the kernel needs nf_tables and nft_nat.',
    });
  }
}

/** Whether the table is there with its rules. */
export async function hasRules(bridge: string, signal: AbortSignal): Promise<boolean> {
  const listed = await run('nft', ['list', 'chain', 'inet', tableOf(bridge), 'translate'], {
    signal,
    timeoutMs,
    okCodes: 'any',
  });
  return listed.code === 0 && listed.stdout.includes('dnat');
}

export async function removeRules(bridge: string, signal: AbortSignal): Promise<void> {
  // 1: there is no such table. Without nftables there is none either.
  await run('nft', ['delete', 'table', 'inet', tableOf(bridge)], { signal, timeoutMs, okCodes: 'any' }).catch(
    () => undefined,
  );
}
