import { join } from 'node:path';
import { repo } from '../vm/cli-node.ts';
import { until } from './kubectl.ts';
import type { ClusterNode, Service } from './node-namespaces.ts';
import { dnsAddress, images, kubernetesDirectory } from './places.ts';

/** The program of the checkout. */
export const podvm = join(repo, 'podvm');
export const containerdSocket = '/run/containerd/containerd.sock';
export const podvmSocket = '/run/podvm/cri.sock';

/** Writes a file of the node. */
export async function write(node: ClusterNode, path: string, text: string): Promise<void> {
  await node.run('sh', ['-c', 'mkdir -p "${1%/*}" && cat >"$1"', 'sh', path], { input: text });
}

/** The pods' network of a node: a bridge, and host ports. */
export async function writeNetwork(node: ClusterNode, subnet: string): Promise<void> {
  const range = { type: 'host-local', ranges: [[{ subnet }]], routes: [{ dst: '0.0.0.0/0' }] };
  const bridge = { type: 'bridge', bridge: 'cni0', isGateway: true, ipMasq: false, hairpinMode: true, ipam: range };
  const ports = { type: 'portmap', capabilities: { portMappings: true } };
  const network = { cniVersion: '1.0.0', name: 'cluster', plugins: [bridge, ports] };
  await write(node, '/etc/cni/net.d/10-cluster.conflist', JSON.stringify(network));
}

/** Containerd with runc, as a node has it without PodVM. */
export async function startContainerd(node: ClusterNode): Promise<Service> {
  const config = `version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "${images.pause}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/cni/bin"]
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
`;
  await write(node, '/etc/containerd/config.toml', config);
  const containerd = await node.serve('containerd', 'containerd', []);
  await serves(node, containerdSocket);
  return containerd;
}

/** The daemon, from the checkout's parts, which the node has already. */
export async function startPodvm(node: ClusterNode, settings: object): Promise<Service> {
  await write(node, '/etc/podvm/podvm.yaml', JSON.stringify(settings));
  const daemon = await node.serve('podvm', podvm, ['daemon', '--config', '/etc/podvm/podvm.yaml']);
  await serves(node, podvmSocket);
  return daemon;
}

/** The daemon that the node image has installed, as its unit starts it: the nodes have no systemd. */
export function installedPodvm(node: ClusterNode): Service {
  const command = "sed -n 's/^ExecStart=//p' /etc/systemd/system/podvm.service";
  return node.service('podvm', 'sh', ['-c', `exec $(${command})`]);
}

/** Waits until a runtime answers. */
export async function serves(node: ClusterNode, socket: string): Promise<void> {
  const argv = ['--config', '/dev/null', '-r', `unix://${socket}`, 'version'];
  await until(`${socket} of ${node.name} answers`, () => node.run('crictl', argv));
}

/**
 * Sysctls that a kubelet sets for the whole machine: it gets files in their places. Only the kubelet has them, since
 * the kernel lets no jail mount a /proc where that of the node is covered in part.
 */
const withOwnSysctls = `set -eu
mount --make-private /proc
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  own=/run/.node/$(echo $name | tr / -)
  cat /proc/sys/$name >$own
  mount --bind $own /proc/sys/$name
done
exec kubelet "$@"`;

/** A kubelet for the runtime at `socket`, with the cgroups of its pods below that of the node. */
export async function startKubelet(node: ClusterNode, socket: string): Promise<Service> {
  const pathOf = (name: string) => join(kubernetesDirectory, 'pki', name);
  const config = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: pathOf('ca.crt') },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: pathOf(`${node.name}.crt`),
    tlsPrivateKeyFile: pathOf(`${node.name}.key`),
    clusterDNS: [dnsAddress],
    clusterDomain: 'cluster.local',
    containerRuntimeEndpoint: `unix://${socket}`,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: node.hasSystemd ? '/' : `/${node.cgroups.path}`,
    failCgroupV1: false,
    failSwapOn: false,
    resolvConf: '/etc/resolv.conf',
    serializeImagePulls: false,
    syncFrequency: '10s',
    // The host's disk may be nearly full.
    imageGCHighThresholdPercent: 100,
    evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
    runtimeRequestTimeout: '4m',
  };
  await write(node, '/var/lib/kubelet/config.yaml', JSON.stringify(config));
  const inOwnMounts = ['--mount', '--propagation', 'unchanged', 'sh', '-c', withOwnSysctls, 'kubelet'];
  return await node.serve('kubelet', 'unshare', [
    ...inOwnMounts,
    '--config=/var/lib/kubelet/config.yaml',
    `--kubeconfig=${join(kubernetesDirectory, `${node.name}.conf`)}`,
    `--hostname-override=${node.name}`,
    `--node-ip=${node.address}`,
    '--v=2',
  ]);
}
