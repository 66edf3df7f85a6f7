import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Certificates } from './certificates.ts';
import { until } from './kubectl.ts';
import type { ClusterNode } from './node-namespaces.ts';
import { apiPort, apiServiceAddress, kubernetesDirectory as directory, podRange, serviceRange } from './places.ts';

const etcd = 'http://127.0.0.1:2379';
const peers = 'http://127.0.0.1:2380';
const pathOf = (name: string) => join(directory, 'pki', name);
const flagsOf = (flags: Readonly<Record<string, string>>) =>
  Object.entries(flags).map(([name, value]) => `--${name}=${value}`);

/**
 * Makes the cluster's certificates and starts etcd, API server, controller manager and scheduler on the node, as
 * processes. The files of `directory` are the same on all `nodes`.
 */
export async function startControlPlane(node: ClusterNode, nodes: readonly ClusterNode[], work: string): Promise<void> {
  const server = `https://${node.address}:${apiPort}`;
  await mkdir(join(work, 'pki'), { recursive: true });
  for (const each of nodes) {
    await each.run('mkdir', [directory]);
    await each.run('mount', ['--bind', work, directory]);
  }
  await makeCertificates(await Certificates.make(join(work, 'pki')), { nodes, server, work });

  const data = ['--data-dir=/var/lib/etcd', '--unsafe-no-fsync', '--log-level=warn'];
  const addresses = flagsOf({
    'listen-client-urls': etcd,
    'advertise-client-urls': etcd,
    'listen-peer-urls': peers,
    'initial-advertise-peer-urls': peers,
    'initial-cluster': `default=${peers}`,
  });
  await node.serve('etcd', 'etcd', [...data, ...addresses]);
  await node.serve('apiserver', 'kube-apiserver', apiServerFlags(node.address));
  await until('the API server is ready', () => node.run('kubectl', ['get', '--raw', '/readyz']), 240_000);
  await node.serve('controller-manager', 'kube-controller-manager', managerFlags());
  await node.serve('scheduler', 'kube-scheduler', componentFlags('scheduler'));
}

interface Making {
  readonly nodes: readonly ClusterNode[];
  readonly server: string;
  readonly work: string;
}

async function makeCertificates(certificates: Certificates, { nodes, server, work }: Making): Promise<void> {
  const service = [
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    'kubernetes.default.svc.cluster.local',
  ];
  const hosts = [apiServiceAddress, '127.0.0.1', ...nodes.map(({ address }) => address)];
  const names = [...service.map((name) => `DNS:${name}`), ...hosts.map((host) => `IP:${host}`)];
  await certificates.sign('apiserver', '/CN=kube-apiserver', names);
  await certificates.sign('apiserver-kubelet', '/O=system:masters/CN=kube-apiserver-kubelet-client');
  await certificates.sign('front-client', '/CN=front-proxy-client', [], 'front-ca');
  const users = {
    admin: '/O=system:masters/CN=admin',
    'controller-manager': '/CN=system:kube-controller-manager',
    scheduler: '/CN=system:kube-scheduler',
  };
  for (const [name, subject] of Object.entries(users)) await certificates.sign(name, subject);
  for (const { name, address } of nodes) {
    await certificates.sign(name, `/O=system:nodes/CN=system:node:${name}`, [`DNS:${name}`, `IP:${address}`]);
  }
  const inCluster = new Set([...Object.keys(users), ...nodes.map(({ name }) => name)]);
  for (const name of inCluster) {
    await writeFile(
      join(work, `${name}.conf`),
      certificates.kubeconfig(name, server).replaceAll(`${work}/`, `${directory}/`),
    );
  }
}

function apiServerFlags(address: string): readonly string[] {
  return flagsOf({
    'etcd-servers': etcd,
    'advertise-address': address,
    'secure-port': String(apiPort),
    'client-ca-file': pathOf('ca.crt'),
    'tls-cert-file': pathOf('apiserver.crt'),
    'tls-private-key-file': pathOf('apiserver.key'),
    'kubelet-certificate-authority': pathOf('ca.crt'),
    'kubelet-client-certificate': pathOf('apiserver-kubelet.crt'),
    'kubelet-client-key': pathOf('apiserver-kubelet.key'),
    'kubelet-preferred-address-types': 'InternalIP',
    'service-account-issuer': 'https://kubernetes.default.svc',
    'service-account-key-file': pathOf('accounts.pub'),
    'service-account-signing-key-file': pathOf('accounts.key'),
    'service-cluster-ip-range': serviceRange,
    'authorization-mode': 'Node,RBAC',
    'enable-admission-plugins': 'NodeRestriction',
    'allow-privileged': 'true',
    'requestheader-client-ca-file': pathOf('front-ca.crt'),
    'requestheader-allowed-names': 'front-proxy-client',
    'requestheader-extra-headers-prefix': 'X-Remote-Extra-',
    'requestheader-group-headers': 'X-Remote-Group',
    'requestheader-username-headers': 'X-Remote-User',
    'proxy-client-cert-file': pathOf('front-client.crt'),
    'proxy-client-key-file': pathOf('front-client.key'),
  });
}

function managerFlags(): readonly string[] {
  return [
    ...componentFlags('controller-manager'),
    '--use-service-account-credentials',
    ...flagsOf({
      'root-ca-file': pathOf('ca.crt'),
      'service-account-private-key-file': pathOf('accounts.key'),
      'cluster-signing-cert-file': pathOf('ca.crt'),
      'cluster-signing-key-file': pathOf('ca.key'),
      'cluster-cidr': podRange,
      'service-cluster-ip-range': serviceRange,
      'allocate-node-cidrs': 'false',
    }),
  ];
}

function componentFlags(name: string): readonly string[] {
  const config = join(directory, `${name}.conf`);
  const kinds = ['kubeconfig', 'authentication-kubeconfig', 'authorization-kubeconfig'];
  return [...kinds.map((kind) => `--${kind}=${config}`), '--leader-elect=false'];
}
