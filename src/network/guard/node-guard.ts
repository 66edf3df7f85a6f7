import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { readFileIfThere } from '#host/files.ts';
import { run } from '#host/run.ts';

/**
 * What the node refuses from the bridge of the built-in network, for all its pods, in a table of nftables: addresses of
 * loopback, also where another program has let the kernel route them (`route_localnet`, CVE-2020-8558), and more
 * connections at a time than one pod may have the node track. Other rules of the node go on as they are: each table
 * has its own say, and a packet that one drops is gone.
 */
export interface NodeGuard {
  readonly bridge: string;
  /** Whether pods reach what listens on the node itself. */
  readonly opensNode: boolean;
}

/** Of one pod, beside a quarter of what the node tracks: a proxy with 130 new connections a second stays below. */
const maxFlows = 16_384;
/**
 * One of so many is counted, and a pod that has too many of these gets no more for a second. The kernel looks through the
 * list of what it counts for each one that is added: counting all of 16,384 makes a new connection take 0.5 ms.
 */
const sample = 16;
const unknownTableSize = 262_144;
const timeoutMs = 10_000;

/** Has the table there, as it is to be; `undefined`, or why it cannot be. One process where it is there already. */
export async function guardNode(guard: NodeGuard, signal: AbortSignal): Promise<string | undefined> {
  const tracked = Number(await readFileIfThere('/proc/sys/net/netfilter/nf_conntrack_max')) || unknownTableSize;
  const rules = rulesOf(guard, Math.min(maxFlows, Math.floor(tracked / 4)));
  // Named by what it says, so that another version, or another setting, is another table.
  const table = `${guard.bridge}_${createHash('sha256').update(rules).digest('hex').slice(0, 12)}`;
  try {
    const input = `create table inet ${table}\ntable inet ${table} {\n${rules}}\n`;
    const made = await run('nft', ['-f', '-'], { input, signal, timeoutMs, okCodes: 'any' });
    if (made.code === 0) await removeTables(guard.bridge, signal, table);
    return made.code === 0 || made.stderr.includes('File exists') ? undefined : printable(made.stderr.trim(), 300);
  } catch (error) {
    signal.throwIfAborted();
    return messageOf(error); // no such program, say
  }
}

/** What packets are counted by. */
const reasons = ['loopback', 'connections', 'services'] as const;

/** Counts for its reason, for the pod (a MAC that is its alone), and then for all, which goes on where the set is full. */
const dropAs = (reason: (typeof reasons)[number], matching: string) => `
    ${matching} update @${reason}_pods { ether saddr counter }
    ${matching} counter name ${reason} drop`;

/**
 * Only the first packet of a connection is looked at: one that is confirmed is in the node's table already, and those of
 * a stream without answers stay new. `inet` sees bridged packets as well, where the node has br_netfilter hand them to it.
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

/** What comes to a host port is not the node's own by then; what the node asked for is not new. */
const closedNode = (bridge: string) => `  chain own {
    type filter hook input priority -10; policy accept;${dropAs('services', `iifname "${bridge}" meta l4proto { tcp, udp, udplite, sctp, dccp } ct state new`)}
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

/** Those of a bridge but for one. A node without nftables has none. */
export async function removeTables(bridge: string, signal: AbortSignal, but?: string): Promise<void> {
  const listed = await list(['tables', 'inet'], signal);
  const tables = listed.flatMap(({ table }) => (table === undefined ? [] : [table.name]));
  const others = tables.filter((name) => name.startsWith(`${bridge}_`) && name !== but);
  for (const name of others) {
    // 1: another process was faster.
    await run('nft', ['delete', 'table', 'inet', name], { signal, timeoutMs, okCodes: [0, 1] });
  }
}

/** Packets that it has dropped, by the reason: `loopback`, `connections`, `services`. Empty: there is no table. */
export async function droppedPackets(bridge: string, signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
  const counters = (await list(['counters'], signal)).flatMap(({ counter }) => counter ?? []);
  const ours = counters.filter(({ table = '' }) => table.startsWith(`${bridge}_`));
  return new Map(ours.map(({ name, packets = 0 }) => [name, packets]));
}

/**
 * By the reason and the MAC of who sent them, which is a pod's alone where its frames are filtered; forgotten when it has
 * sent none for a day. Empty: there is no table.
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
