import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { dnsPort } from '../services/service-rules.ts';

/**
 * An nftables table of packets that the node refuses from the bridge of the built-in network, for all its pods: those
 * to loopback addresses, even if another program makes the kernel route them (`route_localnet`, CVE-2020-8558), and
 * those beyond the simultaneous connections that the node tracks for one pod. It only drops: other tables of the node
 * still apply.
 */
export interface NodeGuard {
  readonly bridge: string;
  /** Whether pods reach services that listen on the node. */
  readonly opensNode: boolean;
  /** Whether to check that an existing table still has its rules, which takes one more process. */
  readonly looksAtRules?: boolean;
}

/** Connections of one pod, at most a quarter of the node's table; a proxy with 130 new ones a second stays below. */
const maxFlows = 16_384;
/**
 * Counts one connection in 16; a pod with too many counted ones gets no new connection for a second. The kernel scans the
 * list of counted connections for each one that it adds: counting all of 16,384 makes a new connection take 0.5 ms.
 */
const sample = 16;
const unknownTableSize = 262_144;
const timeoutMs = 10_000;

/** Ensures that the table exists; returns why it cannot, or undefined. Takes one process when it exists already. */
export async function guardNode(guard: NodeGuard, signal: AbortSignal): Promise<string | undefined> {
  const tracked = Number(await readFileIfThere('/proc/sys/net/netfilter/nf_conntrack_max')) || unknownTableSize;
  const rules = rulesOf(guard, Math.min(maxFlows, Math.floor(tracked / 4)));
  // Named after a digest of its rules, so that another version or setting makes another table.
  const table = `${guard.bridge}_${createHash('sha256').update(rules).digest('hex').slice(0, 12)}`;
  try {
    // An argument, because some versions of nft refuse a socket as standard input (1.0.9: "Not a regular file").
    const script = `create table inet ${table}\ntable inet ${table} {\n${rules}}\n`;
    if (guard.looksAtRules === true && (await isEmptied(table, signal))) {
      await run('nft', ['delete', 'table', 'inet', table], { signal, timeoutMs, okCodes: [0, 1] });
    }
    const made = await run('nft', [script], { signal, timeoutMs, okCodes: 'any' });
    if (made.code === 0) await removeTables(guard.bridge, signal, table);
    return made.code === 0 || made.stderr.includes('File exists') ? undefined : printable(made.stderr.trim(), 300);
  } catch (error) {
    signal.throwIfAborted();
    return messageOf(error); // nft is missing, for example
  }
}

/** Whether the table exists but its rules were flushed. */
async function isEmptied(table: string, signal: AbortSignal): Promise<boolean> {
  const listed = await run('nft', ['list', 'table', 'inet', table], { signal, timeoutMs, okCodes: 'any' });
  return listed.code === 0 && !listed.stdout.includes(' drop');
}

/** The reasons by which dropped packets are counted. */
const reasons = ['loopback', 'connections', 'services'] as const;

/** Counts by reason, for the pod (identified by its MAC) and in total; the total still counts when the set is full. */
const dropAs = (reason: (typeof reasons)[number], matching: string) => `
    ${matching} update @${reason}_pods { ether saddr counter }
    ${matching} counter name ${reason} drop`;

/**
 * Looks only at the first packet of a connection: a confirmed one is in the node's table already, and those of a stream
 * without answers stay new. `inet` also sees bridged packets when the node's br_netfilter passes them on.
 */
const rulesOf = ({ bridge, opensNode }: NodeGuard, flows: number) => `${reasons
  .map(
    (reason) => `
  counter ${reason} { }
  set ${reason}_pods { type ether_addr; size 8192; flags dynamic, timeout; timeout 1d; }`,
  )
  .join('')}
  set flows4 { type ipv4_addr; size 8192; flags dynamic; }
  set flows6 { type ipv6_addr; size 8192; flags dynamic; }
  set full4 { type ipv4_addr; size 8192; flags dynamic, timeout; timeout 1s; }
  set full6 { type ipv6_addr; size 8192; flags dynamic, timeout; timeout 1s; }
  chain untracked {
    type filter hook prerouting priority -310; policy accept;
    iifname != "${bridge}" accept${dropAs('loopback', 'ip saddr 127.0.0.0/8')}${dropAs('loopback', 'ip daddr 127.0.0.0/8')}${dropAs('loopback', 'ip6 saddr ::1')}${dropAs('loopback', 'ip6 daddr ::1')}
  }
  chain tracked {
    type filter hook prerouting priority -150; policy accept;
    iifname != "${bridge}" accept
    ct state != new accept
    ct status confirmed accept${dropAs('connections', 'ip saddr @full4')}${dropAs('connections', 'ip6 saddr @full6')}
    numgen random mod ${sample} != 0 accept
    add @flows4 { ip saddr ct count over ${Math.floor(flows / sample)} } update @full4 { ip saddr }${dropAs('connections', 'ip saddr @full4')}
    add @flows6 { ip6 saddr ct count over ${Math.floor(flows / sample)} } update @full6 { ip6 saddr }${dropAs('connections', 'ip6 saddr @full6')}
  }
${opensNode ? '' : closedNode(bridge)}`;

/**
 * Packets to host ports are translated by then; answers to connections of the node are not new. Names of Services are asked
 * for at an address that is translated, too.
 */
const closedNode = (bridge: string) => `  chain own {
    type filter hook input priority -10; policy accept;
    iifname "${bridge}" meta l4proto { tcp, udp } th dport ${dnsPort} ct status dnat accept${dropAs('services', `iifname "${bridge}" meta l4proto { tcp, udp, udplite, sctp, dccp } ct state new`)}
  }
`;

const item = v.looseObject({ name: v.string(), table: v.optional(v.string()), packets: v.optional(v.number()) });
const element = v.looseObject({
  elem: v.looseObject({ val: v.string(), counter: v.looseObject({ packets: v.number() }) }),
});
const set = v.looseObject({ name: v.string(), table: v.string(), elem: v.optional(v.array(v.unknown()), []) });
const listingSchema = v.object({
  nftables: v.array(v.looseObject({ table: v.optional(item), counter: v.optional(item), set: v.optional(set) })),
});

/** Removes the tables of a bridge except one. Does nothing on a node without nftables. */
export async function removeTables(bridge: string, signal: AbortSignal, but?: string): Promise<void> {
  const listed = await list(['tables', 'inet'], signal);
  const tables = listed.flatMap(({ table }) => (table === undefined ? [] : [table.name]));
  const others = tables.filter((name) => name.startsWith(`${bridge}_`) && name !== but);
  for (const name of others) {
    // 1: another process removed it first.
    await run('nft', ['delete', 'table', 'inet', name], { signal, timeoutMs, okCodes: [0, 1] });
  }
}

/** Dropped packets by reason: `loopback`, `connections`, `services`. Empty when there is no table. */
export async function droppedPackets(bridge: string, signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
  const counters = (await list(['counters'], signal)).flatMap(({ counter }) => counter ?? []);
  const ours = counters.filter(({ table = '' }) => table.startsWith(`${bridge}_`));
  return new Map(ours.map(({ name, packets = 0 }) => [name, packets]));
}

/**
 * Dropped packets by reason and sender's MAC, which identifies a pod where its frames are filtered; an entry is removed
 * after a day without drops. Empty when there is no table.
 */
export async function droppedPacketsOfPods(
  bridge: string,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, ReadonlyMap<string, number>>> {
  const sets = (await list(['sets', 'inet'], signal)).flatMap(({ set: each }) => each ?? []);
  const ours = sets.filter(({ table }) => table.startsWith(`${bridge}_`));
  return new Map(
    ours.flatMap(({ name, elem }) => {
      const reason = reasons.find((each) => name === `${each}_pods`);
      if (reason === undefined) return [];
      const found = elem.filter((each) => v.is(element, each)).map((each) => each.elem);
      return [[reason, new Map(found.map(({ val, counter }) => [val, counter.packets]))] as const];
    }),
  );
}

async function list(what: readonly string[], signal: AbortSignal) {
  const listed = await run('nft', ['-j', 'list', ...what], { signal, timeoutMs, okCodes: 'any' }).catch(
    () => undefined,
  );
  if (listed?.code !== 0) return [];
  return v.parse(listingSchema, JSON.parse(listed.stdout)).nftables;
}
