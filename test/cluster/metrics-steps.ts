import assert from 'node:assert/strict';
import * as v from 'valibot';
import type { Steps } from '../containerd/walk-steps.ts';
import { manifest } from './cluster.ts';
import { type Kubectl, until } from './kubectl.ts';
import { images } from './places.ts';
import { webPods } from './serving-pods.ts';
import type { Tour } from './tour.ts';

/** Figures as a cluster collects them, and what decides by them. */
export const metricsSteps: Steps<Tour> = [
  ['metrics-server is a Deployment in a machine, and serves an API of the cluster', servesMetrics],
  ['kubectl top node shows both nodes', showsNodes],
  ['kubectl top pod shows what each container uses, of both runtimes on both nodes', showsContainers],
  ['an autoscaler adds machines under load, and removes them after it', scales],
  // A namespace cannot be deleted while an API of the cluster has no server.
  [
    'metrics-server is removed with its API',
    async ({ kubectl }) => await kubectl.delete(await manifest('metrics-server.yaml')),
  ],
];

async function servesMetrics({ kubectl }: Tour): Promise<void> {
  await kubectl.apply(await manifest('metrics-server.yaml'));
  await kubectl.rolledOut('deploy/metrics-server', 'kube-system');
  await kubectl.run('wait', '--for=condition=Available', 'apiservice/v1beta1.metrics.k8s.io', '--timeout=240s');
}

async function showsNodes({ kubectl, first, second, say }: Tour): Promise<void> {
  await until('both nodes have figures', async () => {
    const shown = await kubectl.run('top', 'node', '--no-headers');
    for (const { node } of [first, second]) {
      // NAME CPU(cores) CPU(%) MEMORY(bytes) MEMORY(%)
      assert.match(shown, new RegExp(`^${node.name} +[1-9][0-9]*m +[0-9]+% +[1-9][0-9]*Mi +[0-9]+%`, 'm'));
    }
    say(shown.trimEnd());
  });
}

const busyMillis = 250;
const [heldMiB, limitMiB] = [64, 128];
/** What a container without work may show: its only process, and what commands of the tour add. */
const [idleMillis, idleMiB] = [20, 16];

/** A container that uses a quarter of a core and 64 MiB, beside one that does nothing. */
const measured = webPods.map(({ name, node, runtime }) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: `measured-${name}`, labels: { app: 'measured' } },
  spec: {
    ...(runtime === undefined ? {} : { runtimeClassName: runtime }),
    nodeSelector: { 'kubernetes.io/hostname': node },
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: 'busy',
        image: images.busybox,
        command: ['dd', 'if=/dev/zero', 'of=/dev/null', `bs=${heldMiB}M`],
        resources: { limits: { cpu: `${busyMillis}m`, memory: `${limitMiB}Mi` } },
      },
      {
        name: 'idle',
        image: images.busybox,
        command: ['sleep', '100000'],
        resources: { limits: { cpu: '100m', memory: '32Mi' } },
      },
    ],
  },
}));

async function showsContainers({ kubectl, say }: Tour): Promise<void> {
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: measured });
  await kubectl.apply(list);
  await until('all containers have right figures', async () => {
    const shown = await kubectl.run('top', 'pod', '-l', 'app=measured', '--containers', '--no-headers');
    const lines = shown.trim().split('\n');
    assert.equal(lines.length, 2 * measured.length, shown);
    for (const line of lines) {
      const [, , name, millis, memory] = /^(\S+) +(\S+) +(\d+)m +(\d+)Mi *$/.exec(line) ?? assert.fail(line);
      if (name === 'busy') {
        assert.ok(Number(millis) > idleMillis && Number(millis) <= busyMillis * 1.2, line);
        assert.ok(Number(memory) >= heldMiB && Number(memory) <= limitMiB, line);
      } else assert.ok(Number(millis) <= idleMillis && Number(memory) <= idleMiB, line);
    }
    say(shown.trimEnd());
  });
  await kubectl.delete(list);
}

const deployment = v.object({
  spec: v.object({ replicas: v.number() }),
  status: v.object({ readyReplicas: v.optional(v.number(), 0) }),
});

async function hasReplicas(kubectl: Kubectl, expected: number): Promise<void> {
  await until(`${expected} replicas are wanted and ready`, async () => {
    const { spec, status } = await kubectl.json(deployment, 'get', 'deploy', 'scaled');
    assert.deepEqual([spec.replicas, status.readyReplicas], [expected, expected]);
  });
}

async function scales({ kubectl }: Tour): Promise<void> {
  const yaml = await manifest('scaled.yaml');
  await kubectl.apply(yaml);
  await kubectl.rolledOut('deploy/scaled');
  await kubectl.run('wait', '--for=condition=ScalingActive', 'hpa/scaled', '--timeout=240s');
  await hasReplicas(kubectl, 1);
  await kubectl.sh('deploy/scaled', 'touch /tmp/busy');
  await hasReplicas(kubectl, 3);
  for (const { metadata } of await kubectl.pods('app=scaled')) await kubectl.sh(metadata.name, 'rm -f /tmp/busy');
  await hasReplicas(kubectl, 1);
  await kubectl.delete(yaml);
}
