import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import { until } from './kubectl.ts';
import type { ClusterNode } from './node-namespaces.ts';
import type { Tour } from './tour.ts';
import { fetchAll, serviceOf, webAddresses, webNames, webPods } from './serving-pods.ts';

/*
 * Policies as agents of a network write them on each node: a chain for each pod, to which packets from and to its
 * address jump before all else.
 */
const chainOf = (name: string, direction: 'from' | 'to') => `POD-${name}-${direction}`.toUpperCase();

/** Rules between pods of both runtimes, on both workers. */
export const policySteps: Steps<Tour> = [
  ['what no rule allows reaches no pod, by address or by Service', deniesIngress],
  ['a rule lets one pod in, and the others stay out', allowsOne],
  ['a pod that may ask for names alone reaches nothing else', deniesEgress],
  ['without the rules, all pods reach each other again', opens],
];

interface Policy {
  readonly pod: string;
  readonly direction: 'from' | 'to';
  /** Matches of the packets that pass; all others are rejected. */
  readonly allowed: readonly string[];
}

const isEstablished = '-m conntrack --ctstate RELATED,ESTABLISHED';
const webNode = ({ nodes }: Tour, pod: string): ClusterNode => {
  const node = nodes.find(({ name }) => webPods.some((each) => each.name === pod && each.node === name));
  assert.ok(node !== undefined, pod);
  return node;
};

/** Writes the chain of a policy in place of an older one. */
async function write(tour: Tour, { pod, direction, allowed }: Policy): Promise<void> {
  const node = webNode(tour, pod);
  const chain = chainOf(pod, direction);
  const rules = [isEstablished, ...allowed].map((match) => `-A ${chain} ${match} -j ACCEPT\n`).join('');
  const text = `*filter\n:${chain} - [0:0]\n${rules}-A ${chain} -j REJECT\nCOMMIT\n`;
  await node.run('iptables-restore', ['--noflush'], { input: text });
  const address = (await webAddresses(tour.kubectl)).get(pod) ?? '';
  const jump = ['FORWARD', direction === 'from' ? '-s' : '-d', address, '-j', chain];
  const { code } = await node.run('iptables', ['-C', ...jump], { okCodes: 'any' });
  if (code !== 0) await node.run('iptables', ['-I', ...jump]);
}

async function remove(tour: Tour, pod: string, direction: 'from' | 'to'): Promise<void> {
  const chain = chainOf(pod, direction);
  const script = `iptables-save -t filter | grep -v -- '${chain}' | iptables-restore -T filter`;
  await webNode(tour, pod).run('sh', ['-c', script]);
}

/** Checks which pods a pod reaches, by address and by Service. It is never asked for itself. */
async function reaches(tour: Tour, from: string, expected: (to: string) => boolean): Promise<void> {
  const others = webNames.filter((name) => name !== from);
  const addresses = await webAddresses(tour.kubectl);
  const hosts = [...others.map((name) => `${addresses.get(name)}:8080`), ...others.map(serviceOf)];
  const wanted = [...others, ...others].map((name) => (expected(name) ? name : 'none'));
  await until(`${from} reaches ${wanted.join(', ')}`, async () => {
    assert.deepEqual((await tour.kubectl.sh(from, fetchAll(hosts))).split('\n'), wanted);
  });
}

async function deniesIngress(tour: Tour): Promise<void> {
  for (const pod of webNames) await write(tour, { pod, direction: 'to', allowed: [] });
  for (const from of webNames) await reaches(tour, from, () => false);
}

/** The only pod that may reach the other one. */
const friends: Readonly<Record<string, string>> = {
  'machine-1': 'runc-2',
  'machine-2': 'machine-1',
  'runc-2': 'machine-2',
};

async function allowsOne(tour: Tour): Promise<void> {
  const addresses = await webAddresses(tour.kubectl);
  for (const pod of webNames) {
    await write(tour, { pod, direction: 'to', allowed: [`-s ${addresses.get(friends[pod] ?? '')}`] });
  }
  for (const from of webNames) await reaches(tour, from, (to) => friends[to] === from);
}

async function deniesEgress(tour: Tour): Promise<void> {
  for (const pod of webNames) {
    await remove(tour, pod, 'to');
    await write(tour, { pod, direction: 'from', allowed: ['-p udp --dport 53'] });
  }
  for (const from of webNames) {
    assert.match(await tour.kubectl.sh(from, 'nslookup kubernetes.default.svc.cluster.local'), /10\.96\.0\.1\b/);
    await reaches(tour, from, () => false);
  }
}

async function opens(tour: Tour): Promise<void> {
  for (const pod of webNames) await remove(tour, pod, 'from');
  for (const from of webNames) await reaches(tour, from, () => true);
}
