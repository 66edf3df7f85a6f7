import { readFileSync, type Stats, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import type { AttachmentRecord } from './attachment-record.ts';
import { ip } from './ip/ip-command.ts';
import type { ConnectedPod } from './network.ts';
import { netnsPath, tapName } from './netns.ts';

/** Name of the interface that a chain makes, in the netns and in the guest. */
export const interfaceName = 'eth0';

/** A part of a pod's network that is missing. */
export type Loss = 'netns name' | 'netns' | 'tap' | 'pair' | 'bridge port';

/** The host's end of a pod's veth pair, and the bridge to which it is attached. */
export interface HostLink {
  readonly name: string;
  readonly mac: string | undefined;
  readonly bridge: string | undefined;
}

/** Finds the host's link in the chain's answer: one without a netns that is not the chain's bridge. */
export function hostLinkOf({ added, conflist }: AttachmentRecord): HostLink | undefined {
  const bridge = conflist?.plugins[0]?.['bridge'];
  const links = (added?.interfaces ?? []).filter(({ sandbox }) => (sandbox ?? '') === '');
  const link = links.find(({ name }) => name !== bridge);
  if (link === undefined) return undefined;
  const isPort = typeof bridge === 'string' && links.some(({ name }) => name === bridge);
  return { name: link.name, mac: link.mac, bridge: isPort ? bridge : undefined };
}

/**
 * Returns the first loss; undefined when nothing is lost or the process has ended. Reads only /proc and /sys,
 * synchronously, because that takes a tenth of the time of asynchronous calls.
 */
export function findLoss(record: AttachmentRecord, { sandboxId, pid }: ConnectedPod): Loss | undefined {
  if (record.isMoved === true) return undefined; // no process of ours is in its netns
  const own = found(`/proc/${pid}/ns/net`);
  const devices = own && textOf(`/proc/${pid}/net/dev`);
  if (own === undefined || devices === undefined) return undefined;
  const named = found(netnsPath(sandboxId));
  if (named === undefined) return 'netns name';
  if (named.ino !== own.ino) return named.dev === own.dev ? 'netns' : 'netns name'; // an unmounted name is a plain file
  if (record.mode === 'none') return undefined;
  if (!hasLink(devices, tapName)) return 'tap';
  const host = hostLinkOf(record);
  if (!hasLink(devices, interfaceName)) return 'pair';
  if (host?.bridge === undefined) return undefined; // other plugins may name links that do not exist
  if (found(`/sys/class/net/${host.name}`) === undefined) {
    return isLinkThere(host.name) ? undefined : 'pair';
  }
  const master = found(`/sys/class/net/${host.name}/master`);
  const bridge = found(`/sys/class/net/${host.bridge}`);
  return master !== undefined && master.ino === bridge?.ino ? undefined : 'bridge port';
}

/**
 * Whether the netns of this process has the link. A /sys that was mounted in another netns shows the links of that one;
 * /proc always has those of this process.
 */
export function isLinkThere(name: string): boolean {
  return hasLink(textOf('/proc/self/net/dev') ?? '', name);
}

/** Whether the text of a `net/dev` file lists the link. */
function hasLink(devices: string, name: string): boolean {
  return devices.split('\n').some((line) => line.trimStart().startsWith(`${name}:`));
}

/** Returns undefined on any error: a process that has just ended gives others than ENOENT. */
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

/** Restores the name of a netns that still has a process in it. */
export async function nameNetns({ sandboxId, pid }: ConnectedPod, signal: AbortSignal): Promise<void> {
  await rm(netnsPath(sandboxId), { force: true }); // the plain file below the unmounted netns
  await ip(['netns', 'attach', `podvm-${sandboxId}`, String(pid)], signal);
}

const portOf = ({ name, bridge }: HostLink) =>
  bridge === undefined
    ? []
    : [`link set dev ${name} master ${bridge}`, `link set dev ${name} type bridge_slave hairpin on`];

/** Attaches a link to its bridge again, as the plugin `bridge` did. */
export async function makePort(host: HostLink, signal: AbortSignal): Promise<void> {
  await ip(['-batch', '-'], signal, [...portOf(host), `link set dev ${host.name} up`].join('\n'));
}

/**
 * Makes the veth pair of a pod again, with its earlier names, MACs and addresses, so that the chain's records of the
 * pod (its addresses, rules by address) stay valid.
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
