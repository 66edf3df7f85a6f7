import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import { manifest } from './cluster.ts';
import { until } from './kubectl.ts';
import { dnsAddress, images, kernel } from './places.ts';
import type { Tour } from './tour.ts';
import { containerdSocket } from './worker.ts';

/** A cluster's own pods, as ordinary manifests, on both workers. */
export const systemSteps: Steps<Tour> = [
  ['kubectl get node shows a node of podvm and one of containerd, both ready', areNodes],
  ['kube-proxy is a DaemonSet of the network of the host, and the delegate or containerd run it', runsProxy],
  ['CoreDNS is a Deployment in a machine', runsDns],
  ['an exporter of node metrics shares processes and network of the host', runsExporter],
];

async function areNodes({ kubectl, first, second, say }: Tour): Promise<void> {
  await kubectl.apply(await manifest('runtime-class.yaml'));
  const names = [first, second].map(({ node }) => `node/${node.name}`);
  const ready = ['wait', '--for=condition=Ready', ...names, '--timeout=10s'];
  await until('the nodes have registered and are ready', () => kubectl.run(...ready));
  const nodes = await kubectl.run('get', 'node', '-o', 'wide');
  say(nodes.trimEnd());
  assert.match(nodes, new RegExp(`${first.node.name} +Ready[ ,].*podvm://`));
  assert.match(nodes, new RegExp(`${second.node.name} +Ready[ ,].*containerd://`));
}

async function runsProxy({ kubectl, first, second }: Tour): Promise<void> {
  await kubectl.apply(await manifest('kube-proxy.yaml'));
  await kubectl.rolledOut('ds/kube-proxy', 'kube-system');
  for (const { node } of [first, second]) {
    const pods = ['--config', '/dev/null', '-r', `unix://${containerdSocket}`, 'pods', '-o', 'json'];
    assert.match((await node.run('crictl', pods)).stdout, /"kube-proxy-/);
    const rules = async () => {
      const { stdout } = await node.run('iptables-save', ['-t', 'nat']);
      assert.match(stdout, /KUBE-SERVICES .*default\/kubernetes:https cluster IP/);
    };
    await until('kube-proxy writes rules', rules);
  }
}

async function runsDns({ kubectl }: Tour): Promise<void> {
  await kubectl.apply(await manifest('coredns.yaml'));
  await kubectl.rolledOut('deploy/coredns', 'kube-system');
  assert.notEqual(await kubectl.sh('deploy/coredns', 'uname -r', '-n', 'kube-system'), kernel);
  await kubectl.run(
    'run',
    'asks',
    `--image=${images.busybox}`,
    '--restart=Never',
    '--command',
    '--',
    'sleep',
    '100000',
  );
  await kubectl.run('wait', '--for=condition=Ready', 'pod/asks', '--timeout=240s');
  assert.match(await kubectl.sh('asks', 'cat /etc/resolv.conf'), new RegExp(`nameserver ${dnsAddress}`));
  await until('a name resolves', async () => {
    assert.match(await kubectl.sh('asks', 'nslookup kubernetes.default.svc.cluster.local'), /10\.96\.0\.1\b/);
  });
}

async function runsExporter({ kubectl, first, second }: Tour): Promise<void> {
  await kubectl.apply(await manifest('node-exporter.yaml'));
  await kubectl.rolledOut('ds/node-exporter', 'kube-system');
  const pods = await kubectl.pods('app=node-exporter', 'kube-system');
  assert.deepEqual(pods.map(({ spec }) => spec.nodeName).sort(), [first.node.name, second.node.name]);
  for (const { node } of [first, second]) {
    const { stdout } = await node.run('curl', ['-sf', `http://${node.address}:9100/metrics`]);
    assert.ok(
      /^node_network_receive_bytes_total\{device="uplink"\} [1-9]/m.test(stdout),
      'it has the links of the node',
    );
  }
  for (const { metadata } of pods) {
    const processes = await kubectl.sh(metadata.name, 'cat /proc/*/comm', '-n', 'kube-system');
    assert.match(processes, /^kubelet$/m);
  }
}
