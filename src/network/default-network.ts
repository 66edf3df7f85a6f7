import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import type { Conflist } from './cni/cni-schema.ts';
import { overlaps, parsePrefix } from './ip/ipv4.ts';
import { randomUniqueLocal, readIpv6 } from './ip/ipv6.ts';
import { randomMac } from './ip/mac.ts';
import { isLinkThere } from './lost-links.ts';
import { masquerade, masqueradesOf, type NatListings } from './masquerade.ts';
import type { BuiltInBridge } from './network.ts';
import { ServiceDns, servicesDirectory } from './services/service-dns.ts';
import { removeRules } from './services/service-rules.ts';
import { guardNode, removeTables } from './guard/node-guard.ts';
import { readNodeFacts, type NatRules, type NodeFacts } from './ip/node-facts.ts';
import { readLinks, readRoutes, type Link, type Route } from './ip/ip-command.ts';

/**
 * The network of pods when no CNI network is configured: a bridge, addresses by host-local, NAT to the outside, host
 * ports by portmap, and IPv6 besides IPv4 where the node has both (`ipv6.ts`). Bridge and subnet are chosen once per
 * state directory and stored; the bridge's alias is that directory, so that two state directories never share a bridge.
 */
export const defaultNetworkName = 'podvm';

/** Plugins that every pod needs; the others are only for pods that ask for their capability. */
export const defaultPlugins: readonly string[] = ['bridge', 'host-local', 'portmap'];

const choiceSchema = v.object({
  version: v.literal(1),
  bridge: v.pipe(v.string(), v.regex(/^podvm\d{1,3}$/)),
  /** 4094 addresses: `10.86.0.0/20`. */
  subnet: v.pipe(v.string(), v.regex(/^[0-9.]+\/20$/)),
  /** Unique local (RFC 4193): `fd5e:8a01:77c2::/64`. Used only while the node has IPv6. */
  subnet6: v.exactOptional(v.pipe(v.string(), v.regex(/^fd[0-9a-f]{2}:[0-9a-f]{1,4}:[0-9a-f]{1,4}::\/64$/))),
  /** MAC of the bridge, kept for when the bridge is deleted and made again: pods still have it in their tables. */
  mac: v.exactOptional(v.pipe(v.string(), v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/))),
});
export type DefaultNetworkChoice = Readonly<v.InferOutput<typeof choiceSchema>>;

const maxBridges = 64;
const few = 32;

export interface DefaultNetworkOptions {
  /** Whether pods reach services that listen on the node; default true. */
  readonly opensNode?: boolean;
  /** Whether to check the rules of an existing node guard, too. */
  readonly looksAtRules?: boolean;
  /** Called with the reason when the node guard cannot be set up (`node-guard.ts`). */
  readonly onUnguarded?: (why: string) => void;
}

/**
 * Makes bridge and NAT if needed and returns the chain that uses them. Errors: `failedPrecondition`, also when the node
 * must be closed to pods and cannot be; `exhausted`.
 */
export async function openDefaultNetwork(
  stateDir: string,
  signal: AbortSignal,
  { opensNode = true, looksAtRules = false, onUnguarded }: DefaultNetworkOptions = {},
): Promise<Conflist> {
  const path = choicePath(stateDir);
  const saved = parseChoice(await readFileIfThere(path));
  const guardOf = async (bridge: string) => await guardNode({ bridge, opensNode, looksAtRules }, signal);
  // When the bridge exists already, the guard runs beside the look at the node: it is one process more.
  const early = saved !== undefined && (await isOurs(saved.bridge, stateDir)) ? guardOf(saved.bridge) : undefined;
  early?.catch(() => undefined); // awaited below
  const facts = await readNodeFacts(signal);
  const rules = requireNat(facts);
  const { rules6 } = facts;
  const { chosen, links, routes } = await settle(saved, stateDir, facts, signal);
  const ipv6 = await readIpv6(routes, rules6);
  const bridgeLink = links.find((link) => link.ifname === chosen.bridge);
  const choice = {
    ...chosen,
    ...(ipv6.isUsable && chosen.subnet6 === undefined ? { subnet6: randomUniqueLocal() } : {}),
    ...(bridgeLink === undefined ? {} : { mac: await keepMac(chosen, bridgeLink, signal) }),
  };
  if (!isDeepStrictEqual(choice, saved)) await writeFileAtomic(path, `${JSON.stringify(choice)}\n`);
  const subnets = ipv6.isUsable && choice.subnet6 !== undefined ? [choice.subnet, choice.subnet6] : [choice.subnet];
  const wanted = subnets.flatMap((subnet) => masqueradesOf(subnet, choice.bridge));
  const [unguarded] = await Promise.all([
    choice.bridge === saved?.bridge ? (early ?? guardOf(choice.bridge)) : guardOf(choice.bridge),
    masquerade(aliasOf(stateDir), wanted, listingsOf(facts), signal),
    raise(choice, bridgeLink, routes, signal),
    subnets.length > 1 ? addGateway6(choice, routes, signal) : undefined,
    setBridge(choice.bridge, bridgeLink, signal),
  ]);
  if (unguarded !== undefined && !opensNode) throw cannotClose(unguarded);
  if (unguarded !== undefined) onUnguarded?.(unguarded);
  const isForwarded = rules.accepts && (!ipv6.isUsable || ipv6.accepts);
  return conflistOf(choice, { stateDir, subnets, mtu: outsideMtu(links, routes), isForwarded });
}

/** Undefined when no network has been chosen yet. */
export async function bridgeOf(stateDir: string): Promise<string | undefined> {
  return parseChoice(await readFileIfThere(choicePath(stateDir)))?.bridge;
}

/** Undefined when no network has been chosen yet. */
export async function builtInBridge(stateDir: string): Promise<BuiltInBridge | undefined> {
  const choice = parseChoice(await readFileIfThere(choicePath(stateDir)));
  return choice && { bridge: choice.bridge, gateway: gatewayOf(choice.subnet) };
}

const choicePath = (stateDir: string) => join(stateDir, 'default-network.json');

interface Settled {
  readonly chosen: DefaultNetworkChoice;
  readonly links: readonly Link[];
  readonly routes: readonly Route[];
}

const maxTries = 8;

/**
 * Chooses a network, and makes its bridge if it is missing. Other state directories may choose at the same time: when
 * the name was taken meanwhile, or the subnet is on another bridge afterwards, gives it up and chooses again.
 */
async function settle(
  saved: DefaultNetworkChoice | undefined,
  stateDir: string,
  { links, routes }: NodeFacts,
  signal: AbortSignal,
): Promise<Settled> {
  for (let tries = 1; tries <= maxTries; tries += 1) {
    if (tries > 1) [links, routes] = await Promise.all([readLinks(signal), readRoutes(signal)]);
    // The first try takes the first free one, later tries a random one, so that two processes do not collide again.
    const chosen = choose(saved, stateDir, links, routes, tries === 1 ? 0 : Math.random());
    if (links.some((link) => link.ifname === chosen.bridge)) return { chosen, links, routes };
    const made = { ...chosen, mac: chosen.mac ?? randomMac() };
    if (!(await makeBridge(made, stateDir, signal))) continue;
    if (isClear(made.subnet, made.bridge, await readRoutes(signal))) return { chosen: made, links, routes };
    await run('ip', ['link', 'delete', chosen.bridge], { signal, timeoutMs: 10_000 });
  }
  throw new PodvmError(
    'unavailable',
    'Cannot make the default network: other processes took each name and subnet first',
    {
      fix: 'Try again.',
    },
  );
}

/** Removes bridge and NAT, ends what serves Services, and forgets the choice. The state directory must have no attachment. */
export async function removeDefaultNetwork(stateDir: string, signal: AbortSignal): Promise<void> {
  await new ServiceDns(servicesDirectory(stateDir)).stop();
  const facts = await readNodeFacts(signal);
  const ours = facts.links.filter((link) => link.ifalias === aliasOf(stateDir)).map(({ ifname }) => ifname);
  for (const bridge of ours) await run('ip', ['link', 'delete', bridge], { signal });
  // Tables outlive a bridge that another program has deleted, unless its name is another node's now.
  const saved = await bridgeOf(stateDir);
  const isFree = facts.links.every(({ ifname }) => ifname !== saved);
  for (const bridge of saved !== undefined && isFree ? [...ours, saved] : ours) {
    await removeTables(bridge, signal);
    await removeRules(bridge, signal);
  }
  await masquerade(aliasOf(stateDir), [], listingsOf(facts), signal);
}

function listingsOf({ rules, rules6 }: NodeFacts): NatListings {
  return { iptables: rules?.postrouting ?? '', ip6tables: rules6?.postrouting ?? '' };
}

/**
 * Keeps the saved choice while it is still free or ours. Otherwise picks from the first few free bridge names and subnets
 * the one at this position, from 0 to 1: other networks prefer the last ones.
 */
function choose(
  saved: DefaultNetworkChoice | undefined,
  stateDir: string,
  links: readonly Link[],
  routes: readonly Route[],
  howFar: number,
): DefaultNetworkChoice {
  const isFree = (bridge: string) =>
    links.every((link) => link.ifname !== bridge || link.ifalias === aliasOf(stateDir));
  if (saved && isFree(saved.bridge) && isClear(saved.subnet, saved.bridge, routes)) return saved;

  const pick = (free: readonly string[]) => free[Math.floor(howFar * Math.min(free.length, few))];
  const bridge = pick(Array.from({ length: maxBridges }, (_, n) => `podvm${n}`).filter(isFree));
  const subnet = bridge && pick(candidates().filter((candidate) => isClear(candidate, bridge, routes)));
  if (!bridge || !subnet) {
    throw new PodvmError('exhausted', 'Cannot make the default network: the node uses every private subnet', {
      fix: 'Configure a CNI directory with a *.conflist of your own.',
    });
  }
  return { version: 1, bridge, subnet };
}

const isClear = (subnet: string, bridge: string, routes: readonly Route[]) =>
  routes.every((route) => route.dev === bridge || !overlapping(subnet, route.dst));

/** The file may be of another netns, in which the bridge has the same name and alias. */
const isOurs = async (bridge: string, stateDir: string) =>
  isLinkThere(bridge) && (await readFileIfThere(`/sys/class/net/${bridge}/ifalias`))?.trim() === aliasOf(stateDir);

const aliasOf = (stateDir: string) => `podvm:${stateDir}`.slice(0, 255);

function overlapping(subnet: string, destination: string): boolean {
  const [a, b] = [parsePrefix(subnet), parsePrefix(destination)];
  return a !== undefined && b !== undefined && b.bits > 0 && overlaps(a, b);
}

/** Private /20s (RFC 1918), rarely used ones first. */
function candidates(): string[] {
  const quarters = [0, 64, 128, 192];
  return [
    ...Array.from({ length: 32 }, (_, n) => quarters.map((third) => `10.${86 + n}.${third}.0/20`)).flat(),
    ...Array.from({ length: 8 }, (_, n) => quarters.map((third) => `172.${24 + n}.${third}.0/20`)).flat(),
    ...[240, 224, 208, 192].map((third) => `192.168.${third}.0/20`),
  ];
}

function parseChoice(text: string | undefined): DefaultNetworkChoice | undefined {
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(choiceSchema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined; // torn or of another version: choose again
  }
}

/**
 * Gives the bridge its address at once, so that other processes that choose now see the subnet taken. Sets a MAC:
 * otherwise the kernel takes the lowest of the ports', and when that pod ends the others send to a MAC of the gateway
 * that no longer exists, for half a minute (measured: 31 s). Returns false when the bridge name was taken meanwhile.
 */
async function makeBridge(
  choice: DefaultNetworkChoice & { readonly mac: string },
  stateDir: string,
  signal: AbortSignal,
): Promise<boolean> {
  const adding = await run('ip', ['link', 'add', 'name', choice.bridge, 'address', choice.mac, 'type', 'bridge'], {
    signal,
    timeoutMs: 10_000,
    okCodes: [0, 2], // 2: the kernel refuses
  });
  if (adding.code !== 0 && !adding.stderr.includes('File exists')) {
    throw new PodvmError(
      'failedPrecondition',
      `Cannot make the bridge ${choice.bridge}: ${printable(adding.stderr, 200)}`,
      {
        fix: 'Load the kernel module bridge, run podvm as root, or use `--network none`.',
      },
    );
  }
  if (adding.code !== 0) return false;
  const lines = [
    `link set dev ${choice.bridge} alias ${aliasOf(stateDir)}`,
    `address add ${gatewayOf(choice.subnet)}/20 broadcast + dev ${choice.bridge}`,
    `link set dev ${choice.bridge} up`,
  ];
  await run('ip', ['-batch', '-'], { input: lines.join('\n'), signal, timeoutMs: 10_000 });
  return true;
}

/** Returns the MAC of an existing bridge, and makes one permanent that the kernel may still change. */
async function keepMac({ bridge, mac }: DefaultNetworkChoice, { address }: Link, signal: AbortSignal): Promise<string> {
  if (address !== undefined && address === mac) return mac;
  const kept = address === undefined || address === noMac ? randomMac() : address;
  await run('ip', ['link', 'set', 'dev', bridge, 'address', kept], { signal, timeoutMs: 10_000 });
  return kept;
}

/** Keys are paths in `/proc/sys/net`, with `*` for the bridge. */
const bridgeSettings = {
  // For a bridge on which an earlier version let `portmap` set it.
  '/proc/sys/net/ipv4/conf/*/route_localnet': '0',
  // A pod is no router of the node: without forwarding, the node would take routes and addresses from its advertisements.
  '/proc/sys/net/ipv6/conf/*/accept_ra': '0',
  '/proc/sys/net/ipv6/conf/*/autoconf': '0',
  '/proc/sys/net/ipv4/conf/*/accept_redirects': '0',
  '/proc/sys/net/ipv6/conf/*/accept_redirects': '0',
} as const;

/** Disables the table of multicast groups, which pods could fill: multicast goes to every port. */
async function keepNoGroups(bridge: string, signal: AbortSignal): Promise<void> {
  await run('ip', ['link', 'set', 'dev', bridge, 'type', 'bridge', 'mcast_snooping', '0'], { signal, okCodes: 'any' });
}

/** Applies also to a bridge made by an earlier version. Settings that the kernel lacks are skipped. */
async function setBridge(bridge: string, link: Link | undefined, signal: AbortSignal): Promise<void> {
  await Promise.all([
    link?.linkinfo?.info_data?.mcast_snooping === 0 ? undefined : keepNoGroups(bridge, signal),
    ...Object.entries(bridgeSettings).map(async ([pattern, value]) => {
      const path = pattern.replace('*', bridge);
      const now = (await readFileIfThere(path))?.trim();
      if (now !== undefined && now !== value) await writeFile(path, value);
    }),
  ]);
}

const cannotClose = (why: string) =>
  new PodvmError('failedPrecondition', `Cannot close the node to pods, as networkPolicy is outside: ${why}`, {
    fix: 'Install the Debian package nftables; the kernel needs nf_tables and nft_connlimit.',
  });

/** MAC of a bridge without ports. */
const noMac = '00:00:00:00:00:00';

/** Sets the bridge up and restores its address, if either was changed. */
async function raise(
  { bridge, subnet }: DefaultNetworkChoice,
  link: Link | undefined,
  routes: readonly Route[],
  signal: AbortSignal,
): Promise<void> {
  const gateway = gatewayOf(subnet);
  const hasAddress = routes.some(({ type, dst, dev }) => type === 'local' && dst === gateway && dev === bridge);
  if (link?.flags.includes('UP') === true && hasAddress) return;
  const lines = [`address replace ${gateway}/20 broadcast + dev ${bridge}`, `link set dev ${bridge} up`];
  await run('ip', ['-batch', '-'], { input: lines.join('\n'), signal, timeoutMs: 10_000 });
}

const gatewayOf = (subnet: string) => subnet.replace(/\.0\/20$/, '.1');

/** Skips duplicate address detection, so that the first pod need not wait for it. */
async function addGateway6(
  { bridge, subnet6 = '' }: DefaultNetworkChoice,
  routes: readonly Route[],
  signal: AbortSignal,
): Promise<void> {
  const gateway = subnet6.replace(/::\/64$/, '::1');
  if (routes.some(({ type, dst, dev }) => type === 'local' && dst === gateway && dev === bridge)) return;
  await run('ip', ['-6', 'address', 'replace', `${gateway}/64`, 'dev', bridge, 'nodad'], { signal, timeoutMs: 10_000 });
}

/** Errors: `failedPrecondition` when NAT is not available on this node. */
function requireNat({ rules, complaint }: NodeFacts): NatRules {
  if (rules !== undefined) return rules;
  throw new PodvmError(
    'failedPrecondition',
    `Cannot make the default network: iptables does not work on this node: ${complaint}`,
    {
      fix: 'Install the Debian package iptables, load the kernel modules nf_tables (or ip_tables) and nf_nat, or use `--network none`.',
    },
  );
}

/** MTU of the default route's interface, so that packets of pods fit. */
function outsideMtu(links: readonly Link[], routes: readonly Route[]): number {
  const way = routes.find((route) => route.dst === 'default');
  return Math.min(1500, links.find((link) => link.ifname === way?.dev)?.mtu ?? 1500);
}

interface ChainFacts {
  readonly stateDir: string;
  /** A pod gets one address from each. */
  readonly subnets: readonly string[];
  readonly mtu: number;
  /** Whether the node's firewall accepts forwarded packets. */
  readonly isForwarded: boolean;
}

/**
 * Packets to loopback are left to the sockets that hold the ports (`held-ports.ts`): `snat` would set `route_localnet` on
 * the bridge, by which pods reach the node's own 127.0.0.1 (CVE-2020-8558), and ::1 cannot be translated at all.
 */
const portmap = {
  type: 'portmap',
  snat: false,
  conditionsV4: ['!', '-d', '127.0.0.0/8'],
  conditionsV6: ['!', '-d', '::1/128'],
  capabilities: { portMappings: true },
};

function conflistOf({ bridge }: DefaultNetworkChoice, { stateDir, subnets, mtu, isForwarded }: ChainFacts): Conflist {
  const ranges = subnets.map((subnet) => [{ subnet }]);
  return {
    cniVersion: '1.0.0',
    name: defaultNetworkName,
    plugins: [
      {
        type: 'bridge',
        bridge,
        isDefaultGateway: true,
        forceAddress: true,
        hairpinMode: true,
        mtu,
        capabilities: { mac: true },
        ipam: { type: 'host-local', dataDir: ipamDir(stateDir), ranges },
      },
      portmap,
      // A node whose firewall drops forwarded packets (Docker sets this) needs a rule for each pod.
      ...(isForwarded ? [] : [{ type: 'firewall', backend: 'iptables' }]),
      { type: 'bandwidth', capabilities: { bandwidth: true } },
    ],
  };
}

/** Directory of host-local's reservations: one file per address, in one directory per network. */
export const ipamDir = (stateDir: string) => join(stateDir, 'ipam');

/** Whether a chain belongs to the default network of that state directory. */
export function isDefaultNetwork({ plugins }: Conflist, stateDir: string): boolean {
  const ipam = v.safeParse(v.looseObject({ dataDir: v.string() }), plugins[0]?.['ipam']);
  return ipam.success && ipam.output.dataDir === ipamDir(stateDir);
}

/**
 * Plugins of the chain whose CHECK is unreliable, with the reason. `portmap` before 1.3.0 (Debian has 1.1.1) looks for the
 * rules of each address in both families, and reports every attachment with a host port as broken where ip6tables has a
 * nat table (containernetworking/plugins, fb5d195f). It does not report its version.
 */
export const uncheckedPlugins: ReadonlyMap<string, string> = new Map([
  ['portmap', 'versions before 1.3.0 report every pod with a host port as broken'],
]);
