import type { ContainerSecurity } from '../spec/container-security.ts';
import type { ContainerSpec, SandboxSpec } from '../sandbox.ts';

/** Plain specs for tests to vary, without optional requests. */
export const security: ContainerSecurity = {
  privileged: false,
  runAsNonRoot: false,
  supplementalGroups: [],
  readOnlyRootFilesystem: false,
  allowPrivilegeEscalation: true,
  addCapabilities: [],
  dropCapabilities: [],
  seccomp: { kind: 'runtimeDefault' },
  procMount: 'Default',
};

export const containerSpec: ContainerSpec = {
  name: 'main',
  attempt: 0,
  image: 'busybox',
  imagePullPolicy: 'IfNotPresent',
  env: [],
  mounts: [],
  security,
  resources: {},
  tty: false,
  stdin: false,
  terminationMessagePath: '/dev/termination-log',
};

export const sandboxSpec: SandboxSpec = {
  namespace: 'default',
  name: 'web',
  uid: '6f1d1f2e-7c1b-4a7e-9c55-5a2f0a6b3c11',
  labels: {},
  annotations: {},
  hostname: 'web',
  network: 'cni',
  template: 'on',
  images: [],
  hostPorts: [],
  sctp: false,
  dns: { policy: 'Default', nameservers: [], searches: [], options: [] },
  hostAliases: [],
  sysctls: {},
  sharePidNamespace: false,
  volumes: [],
  resources: {},
};
