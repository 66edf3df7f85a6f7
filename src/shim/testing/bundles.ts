import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { eventsFile } from '../bundle/bundle.ts';

/** Specs and bundles as containerd makes them; for tests. */
const annotations = (type: 'sandbox' | 'container', name: string) => ({
  'io.kubernetes.cri.container-type': type,
  'io.kubernetes.cri.sandbox-id': 'pod-1',
  'io.kubernetes.cri.sandbox-name': 'web',
  'io.kubernetes.cri.sandbox-namespace': 'default',
  'io.kubernetes.cri.sandbox-uid': 'u-1',
  ...(type === 'container'
    ? { 'io.kubernetes.cri.container-name': name, 'io.kubernetes.cri.image-name': 'docker.io/library/busybox:1' }
    : { 'io.kubernetes.cri.sandbox-memory': '268435456', 'io.kubernetes.cri.sandbox-cpu-quota': '150000' }),
});

const process = {
  user: { uid: 0, gid: 0, additionalGids: [0, 10] },
  args: ['/pause'],
  env: ['PATH=/bin', 'EQUALS=a=b'],
  cwd: '/',
  capabilities: { bounding: ['CAP_CHOWN', 'CAP_FUTURE'], effective: ['CAP_CHOWN'] },
  noNewPrivileges: true,
};

export const podSpec = {
  ociVersion: '1.2.0',
  process,
  root: { path: 'rootfs', readonly: true },
  hostname: 'web-0',
  mounts: [],
  annotations: annotations('sandbox', ''),
  linux: {
    namespaces: [
      { type: 'pid' },
      { type: 'ipc' },
      { type: 'uts' },
      { type: 'mount' },
      { type: 'network', path: '/run/netns/cni-1' },
    ],
    sysctl: { 'net.core.somaxconn': '1024' },
    resources: { cpu: { shares: 2 } },
  },
};

export const containerSpec = {
  ociVersion: '1.2.0',
  process: { ...process, args: ['sh', '-c', 'true'] },
  root: { path: 'rootfs' },
  mounts: [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid'] },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'ro'] },
  ],
  annotations: annotations('container', 'main'),
  linux: {
    namespaces: [{ type: 'pid' }, { type: 'ipc', path: '/proc/7/ns/ipc' }, { type: 'mount' }],
    resources: { memory: { limit: 67_108_864 }, cpu: { shares: 102, quota: 20_000, period: 100_000 } },
    maskedPaths: ['/proc/keys'],
    readonlyPaths: ['/proc/sys'],
  },
};

/** A container without a pod, as `ctr run` makes it. */
export const singleSpec = {
  ...containerSpec,
  annotations: {},
  linux: {
    ...containerSpec.linux,
    namespaces: ['pid', 'ipc', 'uts', 'mount', 'network'].map((type) => ({ type })),
  },
};

/** Writes a bundle below `state`, of containerd's namespace `k8s.io`, and returns its path. */
export async function writeBundle(state: string, id: string, spec: object, eventsSocket = ''): Promise<string> {
  const bundle = join(state, 'k8s.io', id);
  await mkdir(bundle, { recursive: true });
  await writeFile(join(bundle, 'config.json'), JSON.stringify(spec));
  await writeFile(join(bundle, eventsFile), eventsSocket);
  return bundle;
}
