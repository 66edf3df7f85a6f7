import assert from 'node:assert/strict';
import { isReady, type Kubectl, until } from './kubectl.ts';
import { images } from './places.ts';

/** Pods of which each serves its name at port 8080, and prints numbered lines. */
export const webPods = [
  { name: 'machine-1', node: 'node1', runtime: 'machine' },
  { name: 'machine-2', node: 'node2', runtime: 'machine' },
  { name: 'runc-2', node: 'node2', runtime: undefined },
] as const;

/** Size of what they serve as `/large`. */
export const largeBytes = 2 * 1024 * 1024;

type WebPod = (typeof webPods)[number];

const script = `mkdir /www; hostname >/www/index.html; dd if=/dev/zero of=/www/large bs=${largeBytes} count=1 2>/dev/null
httpd -p 8080 -h /www
trap "exit 0" TERM
line=0; while :; do echo "line $line"; line=$((line + 1)); sleep 0.5; done`;

const podOf = ({ name, node, runtime }: WebPod) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: 'web', web: name } },
  spec: {
    ...(runtime === undefined ? {} : { runtimeClassName: runtime }),
    nodeSelector: { 'kubernetes.io/hostname': node },
    terminationGracePeriodSeconds: 2,
    containers: [
      {
        name: 'main',
        image: images.busybox,
        command: ['sh', '-c', script],
        ports: [{ containerPort: 8080 }],
        resources: { requests: { cpu: '100m' } }, // pods without one starve on a busy host
        readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 2, timeoutSeconds: 20 },
      },
    ],
  },
});

/** Name of the Service of a pod; the name of the pod itself is in its own hosts file. */
export const serviceOf = (name: string): string => `to-${name}`;

/** A Service for each pod, and one for all of them. */
const makeService = (name: string, selector: object) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: { type: 'NodePort', selector, ports: [{ port: 80, targetPort: 8080 }] },
});

export const webManifest = JSON.stringify({
  apiVersion: 'v1',
  kind: 'List',
  items: [
    ...webPods.map(podOf),
    ...webPods.map(({ name }) => makeService(serviceOf(name), { web: name })),
    makeService('all', { app: 'web' }),
  ],
});

export async function startWebPods(kubectl: Kubectl): Promise<void> {
  await kubectl.apply(webManifest);
  await until('all pods are ready', async () => {
    const pods = await kubectl.pods('app=web');
    assert.equal(pods.filter(isReady).length, webPods.length);
  });
}

/** Addresses of the pods by their names. */
export async function webAddresses(kubectl: Kubectl): Promise<ReadonlyMap<string, string>> {
  return new Map((await kubectl.pods('app=web')).map(({ metadata, status }) => [metadata.name, status.podIP]));
}

/** A script that prints what each host serves, or `none`. */
export const fetchAll = (hosts: readonly string[]): string =>
  hosts.map((host) => `wget -qO- -T 20 http://${host}/ 2>/dev/null || echo none`).join('\n');

export const webNames: readonly string[] = webPods.map(({ name }) => name);
