import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import { manifest } from './cluster.ts';
import { until } from './kubectl.ts';
import { networkPolicies, removeChains } from './policies.ts';
import { policySteps } from './policy-steps.ts';
import { startWebPods } from './serving-pods.ts';
import type { Tour } from './tour.ts';
import { containerdSocket } from './worker.ts';

/** NetworkPolicies that an agent enforces on both nodes. */
export const agentSteps: Steps<Tour> = [
  ['kube-router is a DaemonSet of the network of the host, and enforces NetworkPolicies', runsAgent],
  ...policySteps(networkPolicies),
  ['the agent is removed', removesAgent],
];

async function runsAgent({ kubectl, first, second }: Tour): Promise<void> {
  await startWebPods(kubectl);
  await kubectl.apply(await manifest('kube-router.yaml'));
  await kubectl.rolledOut('ds/kube-router', 'kube-system');
  for (const { node } of [first, second]) {
    const pods = ['--config', '/dev/null', '-r', `unix://${containerdSocket}`, 'pods', '-o', 'json'];
    assert.match((await node.run('crictl', pods)).stdout, /"kube-router-/);
    await until('it writes rules', async () => {
      assert.match((await node.run('iptables-save', ['-t', 'filter'])).stdout, /^:KUBE-ROUTER-FORWARD /m);
    });
  }
}

async function removesAgent({ kubectl, first, second }: Tour): Promise<void> {
  await kubectl.delete(await manifest('kube-router.yaml'));
  await until('its pods are gone', async () => {
    assert.deepEqual(await kubectl.pods('k8s-app=kube-router', 'kube-system'), []);
  });
  for (const { node } of [first, second]) await removeChains(node, 'KUBE-(ROUTER|NWPLCY|POD-FW)-');
}
