import { release } from 'node:os';

/** Addresses of the cluster. */
export const serviceRange = '10.96.0.0/16';
export const apiServiceAddress = '10.96.0.1';
export const dnsAddress = '10.96.0.10';
export const podRange = '10.244.0.0/16';
export const apiPort = 6443;

/** The kernel of the nodes; a machine has another one. */
export const kernel = release();

/** Directory of certificates and configurations on every node. */
export const kubernetesDirectory = '/etc/kubernetes';

export const adminConfig = `${kubernetesDirectory}/admin.conf`;

export const images = {
  busybox: 'docker.io/library/busybox:1.37',
  coredns: 'registry.k8s.io/coredns/coredns:v1.14.7',
  csiDriver: 'registry.example/csi/driver:1',
  csiResizer: 'registry.k8s.io/sig-storage/csi-resizer:v2.3.0',
  exporter: 'quay.io/prometheus/node-exporter:v1.9.0',
  node: 'registry.example/podvm/node:0.2.0',
  kubeRouter: 'docker.io/cloudnativelabs/kube-router:v2.1.0',
  metricsServer: 'registry.k8s.io/metrics-server/metrics-server:v0.9.0',
  nginx: 'docker.io/library/nginx:1.28',
  pause: 'registry.k8s.io/pause:3.10',
  proxy: 'registry.k8s.io/kube-proxy:v1.35.4',
} as const;
