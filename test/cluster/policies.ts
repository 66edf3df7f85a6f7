import assert from 'node:assert/strict';
import type { ClusterNode } from './node-namespaces.ts';
import type { Policies, Policy } from './policy-steps.ts';
import type { Tour } from './tour.ts';
import { webAddresses, webPods } from './serving-pods.ts';

/**
 * Policies as agents of a network write them on each node: a chain for each pod, to which packets from and to its
 * address jump before all else.
 */
export const iptablesPolicies: Policies = {
  async write(tour, { pod, direction, allowed }) {
    const node = webNode(tour, pod);
    const addresses = await webAddresses(tour.kubectl);
    const chain = chainOf(pod, direction);
    const matches = [isEstablished, ...matchesOf(allowed, addresses)];
    const rules = matches.map((match) => `-A ${chain} ${match} -j ACCEPT\n`).join('');
    const text = `*filter\n:${chain} - [0:0]\n${rules}-A ${chain} -j REJECT\nCOMMIT\n`;
    await node.run('iptables-restore', ['--noflush'], { input: text });
    const jump = ['FORWARD', direction === 'from' ? '-s' : '-d', addresses.get(pod) ?? '', '-j', chain];
    const { code } = await node.run('iptables', ['-C', ...jump], { okCodes: 'any' });
    if (code !== 0) await node.run('iptables', ['-I', ...jump]);
  },
  async remove(tour, pod, direction) {
    await removeChains(webNode(tour, pod), chainOf(pod, direction));
  },
};

const chainOf = (name: string, direction: 'from' | 'to') => `POD-${name}-${direction}`.toUpperCase();
const isEstablished = '-m conntrack --ctstate RELATED,ESTABLISHED';

/** Matches of the packets that pass; all others are rejected. */
function matchesOf(allowed: Policy['allowed'], addresses: ReadonlyMap<string, string>): readonly string[] {
  if (allowed === 'nothing') return [];
  return [allowed === 'names' ? '-p udp --dport 53' : `-s ${addresses.get(allowed.pod)}`];
}

function webNode({ nodes }: Tour, pod: string): ClusterNode {
  const node = nodes.find(({ name }) => webPods.some((each) => each.name === pod && each.node === name));
  assert.ok(node !== undefined, pod);
  return node;
}

/** Removes the lines of a filter that match. */
export async function removeChains(node: ClusterNode, pattern: string): Promise<void> {
  const script = 'iptables-save -t filter | grep -vE -- "$1" | iptables-restore -T filter';
  await node.run('sh', ['-c', script, 'sh', pattern]);
}

/** The objects that an agent in the cluster enforces. */
export const networkPolicies: Policies = {
  async write({ kubectl }, { pod, direction, allowed }) {
    const metadata = { name: nameOf(pod, direction) };
    const spec = { podSelector: { matchLabels: { web: pod } }, ...rulesOf(direction, allowed) };
    const kind = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' };
    await kubectl.apply(JSON.stringify({ ...kind, metadata, spec }));
  },
  async remove({ kubectl }, pod, direction) {
    await kubectl.run('delete', 'networkpolicy', nameOf(pod, direction));
  },
};

const nameOf = (pod: string, direction: 'from' | 'to') => `${direction}-${pod}`;

function rulesOf(direction: 'from' | 'to', allowed: Policy['allowed']): object {
  if (allowed === 'nothing') return specOf(direction, []);
  if (allowed === 'names') return specOf(direction, [{ ports: [{ protocol: 'UDP', port: 53 }] }]);
  const peers = [{ podSelector: { matchLabels: { web: allowed.pod } } }];
  return specOf(direction, [{ [direction === 'to' ? 'from' : 'to']: peers }]);
}

const specOf = (direction: 'from' | 'to', rules: readonly object[]) =>
  direction === 'to' ? { policyTypes: ['Ingress'], ingress: rules } : { policyTypes: ['Egress'], egress: rules };
