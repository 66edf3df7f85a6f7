import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import type { Worker } from './cluster.ts';
import { removeFromNode } from './deploy-steps.ts';
import { uninstallRelease } from './helm-steps.ts';
import { until } from './kubectl.ts';
import type { Tour } from './tour.ts';

/** The end of the cluster, after which nothing of podvm is left. `remove`: removes it from the containerd node. */
const endOf = <T extends Tour>(...remove: Steps<T>): Steps<T> => [
  ['all pods are removed, and the kubelets have nothing left of them', removesPods],
  ...remove,
  ['podvm is uninstalled from the nodes, and leaves nothing', leavesNothing],
];

export const leaveSteps = endOf([
  'action uninstall of the DaemonSet leaves the containerd node as it was',
  removeFromNode,
]);
export const leaveByHelmSteps = endOf(['helm uninstall leaves the containerd node as it was', uninstallRelease]);
/** For a containerd node on which podvm was not installed. */
export const leaveBareSteps: Steps<Tour> = endOf();

async function removesPods({ kubectl, first, second }: Tour): Promise<void> {
  await kubectl.run('delete', 'deploy,sts,ds,job', '--all', '--all-namespaces', '--wait=false');
  await kubectl.run('delete', 'pod', '--all', '--all-namespaces', '--grace-period=1', '--wait=false');
  await until('no pod is left', async () => {
    assert.equal(await kubectl.run('get', 'pod', '--all-namespaces', '-o', 'name'), '');
  });
  for (const worker of [first, second]) {
    await until(`the kubelet of ${worker.node.name} has nothing left`, async () => {
      assert.equal((await worker.node.run('ls', ['/var/lib/kubelet/pods'])).stdout, '');
      assert.deepEqual(await worker.node.cgroups.ofPods(), []);
    });
  }
}

async function leavesNothing({ first, second }: Tour): Promise<void> {
  for (const worker of [first, second]) {
    await worker[Symbol.asyncDispose]();
    assert.deepEqual(await leftOn(worker), [], worker.node.name);
  }
}

/** Lists traces that a worker has left on its node. */
async function leftOn({ node }: Worker): Promise<readonly string[]> {
  const lines = async (command: string) =>
    (await node.run('sh', ['-c', `${command} || :`])).stdout.split('\n').filter(Boolean);
  const own = new Set(['lo', 'uplink', 'cni0']); // the plugin `bridge` leaves its bridge
  const places = '^/(run/(netns|podvm|containerd)/|var/lib/(kubelet/pods|podvm|containerd)/)';
  return [
    ...(await node.processes()).filter((line) => !/ (?:etcd|kube-|docker-registry)/.test(line)),
    ...(await lines("ip -o link | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'")).filter((name) => !own.has(name)),
    ...(await lines('ls /run/netns 2>/dev/null')),
    // Mounts of the host below /run are there, too, covered by that of the node.
    ...(await lines(
      `awk '{ print $5 }' /proc/self/mountinfo | grep -E '${places}' | while read -r it; do ls -d $it; done`,
    )),
    ...(await lines('iptables-save | grep -i podvm')),
  ];
}
