import assert from 'node:assert/strict';
import * as v from 'valibot';
import type { Steps } from '../containerd/walk-steps.ts';
import { until } from './kubectl.ts';
import { kernel } from './places.ts';
import type { Tour } from './tour.ts';
import { fetchAll, largeBytes, serviceOf, startWebPods, webAddresses, webNames, webPods } from './serving-pods.ts';

/** The network between pods of both runtimes on both workers. */
export const networkSteps: Steps<Tour> = [
  ['a pod runs in a machine on each worker, and one with runc beside', runsPods],
  ['pods reach each other across workers and runtimes, also with much data', reachesPods],
  ['the names of Services lead every pod to pods of both runtimes, also to itself', reachesServices],
  ['a Service leads to all of its pods', spreads],
  ['node ports of both workers lead to every pod, from nodes and from pods', reachesNodePorts],
];

async function runsPods({ kubectl, say }: Tour): Promise<void> {
  await startWebPods(kubectl);
  for (const { name, runtime } of webPods) {
    const isMachine = (await kubectl.sh(name, 'uname -r')) !== kernel;
    assert.equal(isMachine, runtime === 'machine', name);
  }
  say((await kubectl.run('get', 'pod', '-l', 'app=web', '-o', 'wide')).trimEnd());
}

async function reachesPods({ kubectl }: Tour): Promise<void> {
  const addresses = await webAddresses(kubectl);
  const hosts = [...addresses.values()].map((address) => `${address}:8080`);
  const bytes = hosts.map((host) => `wget -qO- -T 20 http://${host}/large | wc -c`).join('\n');
  for (const name of webNames) {
    assert.deepEqual((await kubectl.sh(name, fetchAll(hosts))).split('\n'), [...addresses.keys()], `from ${name}`);
    const sizes = (await kubectl.sh(name, bytes)).split('\n');
    assert.deepEqual(
      sizes,
      hosts.map(() => String(largeBytes)),
      `from ${name}`,
    );
  }
}

async function reachesServices({ kubectl }: Tour): Promise<void> {
  const names = webNames.map(serviceOf).flatMap((name) => [name, `${name}.default.svc.cluster.local`]);
  for (const from of webNames) {
    await until(`${from} reaches all Services`, async () => {
      const said = await kubectl.sh(from, fetchAll(names));
      assert.deepEqual(
        said.split('\n'),
        webNames.flatMap((name) => [name, name]),
        `from ${from}`,
      );
    });
  }
}

async function spreads({ kubectl }: Tour): Promise<void> {
  for (const from of webNames) {
    const seen = new Set<string>();
    await until(`${from} has reached all pods`, async () => {
      for (const name of (await kubectl.sh(from, fetchAll(Array(8).fill('all')))).split('\n')) seen.add(name);
      assert.deepEqual([...seen].sort(), webNames.toSorted());
    });
  }
}

const service = v.object({ spec: v.object({ ports: v.array(v.object({ nodePort: v.number() })) }) });

async function reachesNodePorts({ kubectl, nodes }: Tour): Promise<void> {
  const ports = new Map<string, number>();
  for (const name of webNames) {
    ports.set(name, (await kubectl.json(service, 'get', 'service', serviceOf(name))).spec.ports[0]?.nodePort ?? 0);
  }
  const hosts = nodes.flatMap(({ address }) => [...ports.values()].map((port) => `${address}:${port}`));
  const expected = nodes.flatMap(() => [...ports.keys()]);
  for (const from of webNames) {
    assert.deepEqual((await kubectl.sh(from, fetchAll(hosts))).split('\n'), expected, `from ${from}`);
  }
  for (const node of nodes) {
    const { stdout } = await node.run('curl', ['-sS', '--max-time', '20', ...hosts.map((host) => `http://${host}/`)]);
    assert.deepEqual(stdout.trim().split('\n'), expected, `from ${node.name}`);
  }
}
