import { readFileSync, type Stats, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import type { AttachmentRecord } from './attachment-record.ts';
import { ip } from './ip/ip-command.ts';
import type { ConnectedPod } from './network.ts';
import { netnsPath, tapName } from './netns.ts';

/** Name of the one interface that a chain makes, in the netns and in the guest. */
export const interfaceName = 'eth0';

/** What a pod lacks of what was made for it, looked up without a process. */
export type Loss = 'netns name' | 'netns' | 'tap' | 'pair' | 'bridge port';

/** The host's end of a pod's veth pair, and the bridge that it is a port of. */
export interface HostLink {
  readonly name: string;
  readonly mac: string | undefined;
  readonly bridge: string | undefined;
}

/** Names the links of the host by the chain's answer: those without a netns, of which one may be the chain's bridge. */
export function hostLinkOf({ added, conflist }: AttachmentRecord): HostLink | undefined {
  const bridge = conflist?.plugins[0]?.['bridge'];
  const links = (added?.interfaces ?? []).filter(({ sandbox }) => (sandbox ?? '') === '');
  const link = links.find(({ name }) => name !== bridge);
  if (link === undefined) return undefined;
  const isPort = typeof bridge === 'string' && links.some(({ name }) => name === bridge);
  return { name: link.name, mac: link.mac, bridge: isPort ? bridge : undefined };
}

/**
 * Looks for the first loss; undefined when nothing is lost, or the process is gone. Nothing here waits for a disk, and calls
 * that do not wait take a tenth of the time.
 */
export function findLoss(record: AttachmentRecord, { sandboxId, pid }: ConnectedPod): Loss | undefined {
  const own = found(`/proc/${pid}/ns/net`);
  const devices = own && textOf(`/proc/${pid}/net/dev`);
  if (own === undefined || devices === undefined) return undefined;
  const named = found(netnsPath(sandboxId));
  if (named === undefined) return 'netns name';
  if (named.ino !== own.ino) return named.dev === own.dev ? 'netns' : 'netns name'; // an empty file is no netns
  if (record.mode === 'none') return undefined;
  const has = (name: string) => devices.split('\n').some((line) => line.trimStart().startsWith(`${name}:`));
  if (!has(tapName)) return 'tap';
  const host = hostLinkOf(record);
  if (!has(interfaceName)) return 'pair';
  if (host?.bridge === undefined) return undefined; // other plugins may name links that do not exist
  if (found(`/sys/class/net/${host.name}`) === undefined) return 'pair';
  const master = found(`/sys/class/net/${host.name}/master`);
  const bridge = found(`/sys/class/net/${host.bridge}`);
  return master !== undefined && master.ino === bridge?.ino ? undefined : 'bridge port';
}

/** Undefined when it is not there; of a process that has just ended there are other errors, too. */
function found(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}

/** Gives a netns that lives on in a process its name again. */
export async function nameNetns({ sandboxId, pid }: ConnectedPod, signal: AbortSignal): Promise<void> {
  await rm(netnsPath(sandboxId), { force: true }); // a file that nothing is mounted on any more
  await ip(['netns', 'attach', `podvm-${sandboxId}`, String(pid)], signal);
}

const portOf = ({ name, bridge }: HostLink) =>
  bridge === undefined
    ? []
    : [`link set dev ${name} master ${bridge}`, `link set dev ${name} type bridge_slave hairpin on`];

/** Makes a link a port of its bridge again, as the plugin `bridge` did. */
export async function makePort(host: HostLink, signal: AbortSignal): Promise<void> {
  await ip(['-batch', '-'], signal, [...portOf(host), `link set dev ${host.name} up`].join('\n'));
}

/**
 * Makes the veth pair of a pod again, with the names, MACs and addresses that it had: what the chain keeps for the pod (its
 * addresses, rules by address) stays as it is.
 */
export async function makePair(record: AttachmentRecord, host: HostLink, signal: AbortSignal): Promise<void> {
  const { sandboxId, guest, added } = record;
  const [inside] = guest?.interfaces ?? [];
  if (inside === undefined) return;
  const netns = `podvm-${sandboxId}`;
  const mac = host.mac === undefined ? '' : ` address ${host.mac}`;
  const pair = `link add name ${host.name}${mac} mtu ${inside.mtu} type veth peer name ${interfaceName} address ${inside.mac} mtu ${inside.mtu} netns ${netns}`;
  await ip(['-batch', '-'], signal, [pair, ...portOf(host), `link set dev ${host.name} up`].join('\n'));
  const gateways = (added?.ips ?? []).flatMap(({ gateway }) => gateway ?? []);
  const lines = [
    `link set dev ${interfaceName} up`,
    ...(added?.ips ?? []).map(
      ({ address }) => `address add ${address} dev ${interfaceName}${address.includes(':') ? ' nodad' : ''}`,
    ),
    ...gateways.map((gateway) => `route add default via ${gateway} dev ${interfaceName}`),
  ];
  await ip(['-netns', netns, '-batch', '-'], signal, lines.join('\n'));
}

/** Removes both links of a pair. */
export async function removePair({ name }: HostLink): Promise<void> {
  await ip(['link', 'delete', name], AbortSignal.timeout(10_000));
}
