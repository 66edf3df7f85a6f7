import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import { manifest } from './cluster.ts';
import { isReady, until } from './kubectl.ts';
import { dnsAddress, images } from './places.ts';
import type { FirstTour } from './tour.ts';
import { containerdSocket } from './worker.ts';

/** A cluster's own pods, as ordinary manifests, on a node whose kubelet uses podvm with a delegate. */
export const systemSteps: Steps<FirstTour> = [
  ['kubectl get node shows a node of podvm that is ready', isANode],
  ['kube-proxy is a DaemonSet of the network of the host, and the delegate runs it', runsProxy],
  ['CoreDNS is a Deployment in a machine', runsDns],
  ['an exporter of node metrics shares processes and network of the host', runsExporter],
];

async function isANode({ kubectl, first, say }: FirstTour): Promise<void> {
  const ready = ['wait', '--for=condition=Ready', `node/${first.node.name}`, '--timeout=10s'];
  await until('the node has registered and is ready', () => kubectl.run(...ready));
  const nodes = await kubectl.run('get', 'node', '-o', 'wide');
  say(nodes.trimEnd());
  assert.match(nodes, new RegExp(`${first.node.name} +Ready .*podvm://`));
}

async function runsProxy({ kubectl, first }: FirstTour): Promise<void> {
  await kubectl.apply(await manifest('kube-proxy.yaml'));
  await until('a pod of kube-proxy is ready', async () => {
    assert.ok((await kubectl.pods('k8s-app=kube-proxy', 'kube-system')).some(isReady));
  });
  const pods = ['--config', '/dev/null', '-r', `unix://${containerdSocket}`, 'pods', '-o', 'json'];
  assert.match((await first.node.run('crictl', pods)).stdout, /"kube-proxy-/);
  const rules = async () => {
    const { stdout } = await first.node.run('iptables-save', ['-t', 'nat']);
    assert.match(stdout, /KUBE-SERVICES .*default\/kubernetes:https cluster IP/);
  };
  await until('kube-proxy writes rules', rules);
}

async function runsDns({ kubectl, first }: FirstTour): Promise<void> {
  await kubectl.apply(await manifest('coredns.yaml'));
  await kubectl.rolledOut('deploy/coredns', 'kube-system');
  const pods = ['--config', '/dev/null', '-r', `unix://${containerdSocket}`, 'pods', '-o', 'json'];
  assert.doesNotMatch((await first.node.run('crictl', pods)).stdout, /"coredns-/);
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

async function runsExporter({ kubectl, first }: FirstTour): Promise<void> {
  await kubectl.apply(await manifest('node-exporter.yaml'));
  await kubectl.rolledOut('ds/node-exporter', 'kube-system');
  const { stdout } = await first.node.run('curl', ['-sf', `http://${first.node.address}:9100/metrics`]);
  assert.ok(/^node_network_receive_bytes_total\{device="uplink"\} [1-9]/m.test(stdout), 'it has the links of the node');
  const [pod] = await kubectl.pods('app=node-exporter', 'kube-system');
  const processes = await kubectl.sh(pod?.metadata.name ?? '', 'cat /proc/*/comm', '-n', 'kube-system');
  assert.match(processes, /^kubelet$/m);
}
