import assert from 'node:assert/strict';
import * as v from 'valibot';
import type { Steps } from '../containerd/walk-steps.ts';
import { manifest } from './cluster.ts';
import { until } from './kubectl.ts';
import { images } from './places.ts';
import type { Tour, WorkerTour } from './tour.ts';

/** A CSI driver and its volumes, in machines of both workers. */
export const csiSteps: Steps<Tour> = [
  ['a CSI driver with its resizer is a DaemonSet whose mounts others see, and both kubelets know it', runsDriver],
];

/** Volumes of the driver in a machine of a worker. */
export const csiVolumeSteps: Steps<WorkerTour> = [
  ['claims of the modes Filesystem and Block are in a machine', mountsClaims],
  ['both grow while the pod runs', growsClaims],
  ['they are unmounted after the pod, and the next one has what it wrote', keepsClaims],
];

const driver = 'files.csi.podvm.dev';
const [smallMiB, largeMiB] = [256, 320];
const mib = 1024 * 1024;
const modes = ['Filesystem', 'Block'] as const;
type Mode = (typeof modes)[number];

async function runsDriver({ kubectl, first, second }: Tour): Promise<void> {
  await kubectl.apply(await manifest('csi.yaml'));
  await kubectl.rolledOut('ds/csi-files', 'kube-system');
  for (const { node } of [first, second]) {
    await until(`the kubelet of ${node.name} knows the driver`, async () => {
      const known = await kubectl.run('get', 'csinode', node.name, '-o', 'jsonpath={.spec.drivers[*].name}');
      assert.equal(known, driver);
    });
  }
}

const nameOf = (node: string, mode: Mode) => `${node}-${mode.toLowerCase()}`;
const size = (sizeMiB: number) => ({ storage: `${sizeMiB}Mi` });

function volumeOf(node: string, mode: Mode): readonly object[] {
  const name = nameOf(node, mode);
  const terms = [{ matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [node] }] }];
  const common = { accessModes: ['ReadWriteOnce'], storageClassName: 'csi-files', volumeMode: mode };
  const csi = { driver, volumeHandle: name, volumeAttributes: { size: String(smallMiB * mib) } };
  return [
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name },
      spec: {
        ...common,
        capacity: size(smallMiB),
        persistentVolumeReclaimPolicy: 'Retain',
        nodeAffinity: { required: { nodeSelectorTerms: terms } },
        csi: { ...csi, ...(mode === 'Filesystem' ? { fsType: 'btrfs' } : {}) },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name },
      spec: { ...common, volumeName: name, resources: { requests: size(smallMiB) } },
    },
  ];
}

const podOf = (node: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'claims', labels: { app: 'claims' } },
  spec: {
    runtimeClassName: 'machine',
    nodeSelector: { 'kubernetes.io/hostname': node },
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: 'main',
        image: images.busybox,
        command: ['sleep', '100000'],
        resources: { requests: { cpu: '100m' } },
        volumeMounts: [{ name: 'files', mountPath: '/files' }],
        volumeDevices: [{ name: 'disk', devicePath: '/dev/claimed' }],
      },
    ],
    volumes: [
      { name: 'files', persistentVolumeClaim: { claimName: nameOf(node, 'Filesystem') } },
      { name: 'disk', persistentVolumeClaim: { claimName: nameOf(node, 'Block') } },
    ],
  },
});

const listOf = (items: readonly object[]) => JSON.stringify({ apiVersion: 'v1', kind: 'List', items });

async function startPod({ kubectl, at }: WorkerTour): Promise<void> {
  await kubectl.apply(listOf([podOf(at.node.name)]));
  await kubectl.run('wait', '--for=condition=Ready', 'pod/claims', '--timeout=240s');
}

const writes = `echo kept >/files/word && sync && dd if=/files/word of=/dev/claimed bs=5 count=1 conv=fsync 2>/dev/null`;
const reads = 'cat /files/word && dd if=/dev/claimed bs=5 count=1 2>/dev/null';
/** Prints the sizes of file system and disk in bytes. */
const sizes = 'echo $(($(stat -f -c "%b * %S" /files))); blockdev --getsize64 /dev/claimed';

async function mountsClaims(tour: WorkerTour): Promise<void> {
  const { kubectl, at } = tour;
  await kubectl.apply(listOf(modes.flatMap((mode) => volumeOf(at.node.name, mode))));
  await startPod(tour);
  await kubectl.sh('claims', writes);
  assert.equal(await kubectl.sh('claims', reads), 'kept\nkept');
  const [files, disk] = (await kubectl.sh('claims', sizes)).split('\n').map(Number);
  assert.ok(files !== undefined && files > (smallMiB / 2) * mib && files <= smallMiB * mib, String(files));
  assert.equal(disk, smallMiB * mib);
}

const claim = v.object({ status: v.object({ capacity: v.object({ storage: v.string() }) }) });

async function growsClaims({ kubectl, at }: WorkerTour): Promise<void> {
  const patch = JSON.stringify({ spec: { resources: { requests: size(largeMiB) } } });
  for (const mode of modes) await kubectl.run('patch', 'pvc', nameOf(at.node.name, mode), '-p', patch);
  await until('the container sees the new sizes', async () => {
    const [files, disk] = (await kubectl.sh('claims', sizes)).split('\n').map(Number);
    assert.ok(files !== undefined && files > smallMiB * mib && files <= largeMiB * mib, String(files));
    assert.equal(disk, largeMiB * mib);
  });
  for (const mode of modes) {
    await until(`the claim of mode ${mode} has the new size`, async () => {
      const { status } = await kubectl.json(claim, 'get', 'pvc', nameOf(at.node.name, mode));
      assert.deepEqual(status.capacity, size(largeMiB));
    });
  }
  assert.equal(await kubectl.sh('claims', reads), 'kept\nkept');
}

async function keepsClaims(tour: WorkerTour): Promise<void> {
  const { kubectl, at } = tour;
  await kubectl.run('delete', 'pod', 'claims');
  await leavesNone(tour);
  await startPod(tour);
  assert.equal(await kubectl.sh('claims', reads), 'kept\nkept');
  await kubectl.run('delete', 'pod', 'claims');
  await leavesNone(tour);
  await kubectl.delete(listOf(modes.flatMap((mode) => volumeOf(at.node.name, mode))));
}

/** Waits until the node has no mount and no loop device of the claims. */
async function leavesNone({ at: { node } }: WorkerTour): Promise<void> {
  await until('nothing of the claims is mounted or attached', async () => {
    const mounts = (await node.run('cat', ['/proc/self/mountinfo'])).stdout.split('\n');
    assert.deepEqual(
      mounts.filter((line) => line.includes('/kubernetes.io/csi/') || line.includes('kubernetes.io~csi')),
      [],
    );
    const { stdout } = await node.run('losetup', ['--noheadings', '--output', 'BACK-FILE']);
    assert.deepEqual(
      stdout.split('\n').filter((line) => line.includes(`${node.name}-`)),
      [],
    );
  });
}
