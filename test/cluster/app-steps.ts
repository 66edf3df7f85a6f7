import assert from 'node:assert/strict';
import * as v from 'valibot';
import type { Steps } from '../containerd/walk-steps.ts';
import { manifest } from './cluster.ts';
import { type Kubectl, until } from './kubectl.ts';
import { kernel } from './places.ts';
import type { Tour } from './tour.ts';
import { fetchAll } from './serving-pods.ts';

/** Workloads of controllers, in machines of both workers. */
export const appSteps: Steps<Tour> = [
  ['a Deployment is on both workers, and is rolled out and back', rollsOut],
  ['pods of a StatefulSet keep names and claimed volumes', keepsVolumes],
  ['a Job tries again after a failed attempt, and a CronJob is started by hand', runsJobs],
  ['a container that needs too much memory is killed alone, and its status says so', killsHungry],
  ['a DaemonSet has a machine on each worker', runsEverywhere],
];

const nodesOf = async (kubectl: Kubectl, app: string) =>
  [...new Set((await kubectl.pods(`app=${app}`)).map(({ spec }) => spec.nodeName))].sort();

async function rollsOut({ kubectl }: Tour): Promise<void> {
  await kubectl.apply(await manifest('shop.yaml'));
  await kubectl.rolledOut('deploy/shop');
  assert.deepEqual(await nodesOf(kubectl, 'shop'), ['node1', 'node2']);
  const shows = async (edition: string) => {
    await until(`the Service shows edition ${edition}`, async () => {
      const said = await kubectl.sh('asks', fetchAll(Array(6).fill('shop.default.svc.cluster.local')));
      assert.deepEqual([...new Set(said.split('\n'))], [edition]);
    });
  };
  await shows('first');
  await kubectl.run('set', 'env', 'deploy/shop', 'EDITION=second');
  await kubectl.rolledOut('deploy/shop');
  await shows('second');
  await kubectl.run('rollout', 'undo', 'deploy/shop');
  await kubectl.rolledOut('deploy/shop');
  await shows('first');
}

async function keepsVolumes({ kubectl, nodes }: Tour): Promise<void> {
  for (const node of nodes) await node.run('mkdir', ['-p', '/var/lib/podvm-cluster-disk']);
  await kubectl.apply(await manifest('stateful.yaml'));
  await kubectl.rolledOut('sts/store');
  assert.deepEqual(await nodesOf(kubectl, 'store'), ['node1', 'node2']);
  const names = ['store-0', 'store-1'];
  const before = await kubectl.pods('app=store');
  await kubectl.run('delete', 'pod', '-l', 'app=store');
  await kubectl.rolledOut('sts/store');
  for (const { metadata, spec } of await kubectl.pods('app=store')) {
    const old = before.find(({ metadata: { name } }) => name === metadata.name);
    assert.notEqual(metadata.uid, old?.metadata.uid);
    assert.equal(spec.nodeName, old?.spec.nodeName, 'it is where its volume is');
    assert.equal(await kubectl.sh(metadata.name, 'cat /data/starts'), `${metadata.name}\n${metadata.name}`);
  }
  await until('the pods have names', async () => {
    const hosts = names.map((name) => `${name}.store.default.svc.cluster.local:8080/starts`);
    const said = await kubectl.sh('asks', hosts.map((host) => `wget -qO- -T 20 http://${host}`).join('\n'));
    assert.deepEqual(
      said.split('\n'),
      names.flatMap((name) => [name, name]),
    );
  });
  await kubectl.delete(await manifest('stateful.yaml'));
}

const job = v.object({ status: v.object({ succeeded: v.number(), failed: v.optional(v.number(), 0) }) });

async function runsJobs({ kubectl, nodes }: Tour): Promise<void> {
  for (const { name } of nodes) {
    const yaml = await manifest('jobs.yaml', { NODE: name });
    await kubectl.apply(yaml);
    await kubectl.run('create', 'job', '--from=cronjob/yearly', 'now');
    await kubectl.run('wait', '--for=condition=Complete', 'job/tries', 'job/now', '--timeout=240s');
    assert.deepEqual((await kubectl.json(job, 'get', 'job', 'tries')).status, { succeeded: 1, failed: 1 });
    const logs = await kubectl.run('logs', '-l', 'job-name=tries', '--tail=-1');
    assert.deepEqual(logs.trim().split('\n').toSorted(), ['fails', 'works']);
    const codes = 'jsonpath={.items[*].status.containerStatuses[0].state.terminated.exitCode}';
    const found = await kubectl.run('get', 'pod', '-l', 'job-name=tries', '-o', codes);
    assert.deepEqual(found.split(' ').toSorted(), ['0', '3']);
    assert.equal(await kubectl.run('logs', 'job/now'), 'a year has passed\n');
    await kubectl.run('delete', 'job', 'now'); // it goes with the CronJob at some time
    await kubectl.delete(yaml);
  }
}

const ended = v.object({
  name: v.string(),
  state: v.object({
    running: v.optional(v.unknown()),
    terminated: v.optional(v.object({ exitCode: v.number(), reason: v.string() })),
  }),
});
const statuses = v.object({ status: v.object({ containerStatuses: v.array(ended) }) });

async function killsHungry({ kubectl, nodes }: Tour): Promise<void> {
  for (const { name } of nodes) {
    const yaml = await manifest('eats.yaml', { NODE: name });
    await kubectl.apply(yaml);
    await until(`the container is killed on ${name}`, async () => {
      const { status } = await kubectl.json(statuses, 'get', 'pod', 'eats');
      const stateOf = (which: string) => status.containerStatuses.find((each) => each.name === which)?.state;
      assert.deepEqual(stateOf('main')?.terminated, { exitCode: 137, reason: 'OOMKilled' });
      assert.ok(stateOf('beside')?.running !== undefined);
    });
    await kubectl.delete(yaml);
  }
}

async function runsEverywhere({ kubectl, nodes }: Tour): Promise<void> {
  const yaml = await manifest('daemon-set.yaml');
  await kubectl.apply(yaml);
  await kubectl.rolledOut('ds/everywhere');
  assert.deepEqual(
    await nodesOf(kubectl, 'everywhere'),
    nodes.map(({ name }) => name),
  );
  for (const { metadata } of await kubectl.pods('app=everywhere')) {
    assert.notEqual(await kubectl.sh(metadata.name, 'uname -r'), kernel);
  }
  await kubectl.delete(yaml);
}
