import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import { isReady, until } from './kubectl.ts';
import { images } from './places.ts';
import type { Tour } from './tour.ts';
import { fetchAll } from './serving-pods.ts';

/** Pods that move from worker to worker. The Deployment of `app-steps.ts` and CoreDNS run. */
export const drainSteps: Steps<Tour> = [
  ['pods move when the containerd node is drained', (tour) => moves(tour, 'node2', 'node1')],
  ['pods move back when that of podvm is drained', (tour) => moves(tour, 'node1', 'node2')],
];

async function moves({ kubectl }: Tour, from: string, to: string): Promise<void> {
  const flags = ['--ignore-daemonsets', '--delete-emptydir-data', '--force', '--timeout=240s'];
  await kubectl.run('drain', from, ...flags);
  for (const [app, namespace] of [
    ['app=shop', 'default'],
    ['k8s-app=kube-dns', 'kube-system'],
  ] as const) {
    await until(`pods of ${app} are on ${to}`, async () => {
      const pods = await kubectl.pods(app, namespace);
      assert.ok(pods.length > 0 && pods.every(isReady));
      assert.deepEqual([...new Set(pods.map(({ spec }) => spec.nodeName))], [to]);
    });
  }
  await kubectl.run('uncordon', from);
  const image = ['--image', images.busybox, '--restart=Never'];
  await kubectl.run('run', 'visitor', ...image, '--command', '--', 'sleep', '100000');
  await kubectl.run('wait', '--for=condition=Ready', 'pod/visitor', '--timeout=240s');
  await until('the Service leads to the pods', async () => {
    assert.equal(await kubectl.sh('visitor', fetchAll(['shop.default.svc.cluster.local'])), 'first');
  });
  await kubectl.run('delete', 'pod', 'visitor', '--grace-period=1');
}
