import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, fromBinary } from '@bufbuild/protobuf';
import * as v from 'valibot';
import { podCgroupOf } from '../bundle/pod-cgroup.ts';
import { specSchema } from '../bundle/oci-spec.ts';
import { MetricsSchema } from '../schema/generated/cgroup2/metrics_pb.ts';
import { MountSchema } from '../schema/generated/types/mount_pb.ts';
import { containerSpec, podSpec, singleSpec } from '../testing/bundles.ts';
import { containerSpecOf } from './container-spec.ts';
import { metricsOf } from './metrics.ts';
import { resourcesOf } from './resources.ts';
import { snapshotLayersOf } from './rootfs.ts';
import { sandboxSpecOf } from './sandbox-spec.ts';

const read = (spec: object) => v.parse(specSchema, spec);
const facts = { id: 'box-1', attempt: 3, rootfs: ['/s/2/fs', '/s/1/fs'], podPid: 7, hasStdin: false, outputs: {} };
const container = (more: object = {}) => containerSpecOf(read({ ...containerSpec, ...more }), facts);
const pod = (more: object = {}, resolvConf?: string, cgroupParent?: string) =>
  sandboxSpecOf(read({ ...podSpec, ...more }), {
    ...{ id: 'pod-1', namespace: 'k8s.io', attempt: 2 },
    resolvConf,
    cgroupParent,
  });

test('sandboxSpecOf() reads the netns, names, limits and resolver of the pod', () => {
  const spec = pod({}, 'nameserver 10.0.0.10\nsearch a.local b.local\noptions ndots:5\n# nameserver 1.1.1.1\n');
  assert.deepEqual([spec.namespace, spec.name, spec.uid, spec.attempt], ['default', 'web', 'u-1', 2]);
  assert.deepEqual([spec.network, spec.netns, spec.hostname], ['given', '/run/netns/cni-1', 'web-0']);
  assert.deepEqual(spec.resources, { memoryLimitBytes: 268_435_456, cpuLimitMillis: 1500 });
  const dns = { nameservers: ['10.0.0.10'], searches: ['a.local', 'b.local'], options: ['ndots:5'] };
  assert.deepEqual(spec.dns, { policy: 'None', ...dns });
  assert.deepEqual(spec.sysctls, { 'net.core.somaxconn': '1024' });
  assert.deepEqual([spec.isKept, spec.keptFor], [true, 'containerd']);
});

test('a pod is in the cgroup where containerd would make its sandbox, if it exists', async () => {
  const cgroupOf = (cgroupsPath: string) => podCgroupOf(read({ ...podSpec, linux: { ...podSpec.linux, cgroupsPath } }));
  assert.equal(await cgroupOf(''), undefined);
  assert.equal(await cgroupOf('/podvm-test-none/pod1/id'), undefined);
  assert.equal(await cgroupOf('podvm-test-none.slice:cri-containerd:id'), undefined);
  await assert.rejects(cgroupOf('/a/../b/id'), { kind: 'invalid' });
  const spec = pod({}, undefined, 'kubepods/burstable/pod1');
  assert.deepEqual([spec.cgroupParent, spec.resources.oomScoreAdj], ['kubepods/burstable/pod1', 999]);
});

test("sandboxSpecOf() passes podvm's own annotations, and refuses a word that is none", () => {
  const annotated = (name: string, value: string) => ({ annotations: { ...podSpec.annotations, [name]: value } });
  assert.deepEqual(pod(annotated('podvm.dev/kernel-modules', 'open')).annotations, {
    'podvm.dev/kernel-modules': 'open',
  });
  assert.equal(pod(annotated('podvm.dev/template', 'off')).template, 'off');
  assert.throws(() => pod(annotated('podvm.dev/template', 'of')), { kind: 'invalid' });
});

test('sandboxSpecOf() makes a sandbox of a single container: its own name and limits, and no network', () => {
  const single = (linux: object = {}) => pod({ ...singleSpec, hostname: '', linux: { ...singleSpec.linux, ...linux } });
  const spec = single();
  assert.deepEqual([spec.namespace, spec.name, spec.uid, spec.hostname], ['k8s.io', 'pod-1', 'pod-1', 'pod-1']);
  assert.deepEqual([spec.network, spec.netns], ['none', undefined]);
  assert.deepEqual(spec.resources, { memoryLimitBytes: 67_108_864, cpuLimitMillis: 200, cpuRequestMillis: 100 });
  const others = singleSpec.linux.namespaces.filter(({ type }) => type !== 'network');
  const given = single({ namespaces: [...others, { type: 'network', path: '/run/netns/own' }] });
  assert.deepEqual([given.network, given.netns], ['given', '/run/netns/own']);
  assert.throws(() => single({ namespaces: others }), {
    kind: 'failedPrecondition',
    message: /container pod-1 .* namespaces: network$/,
  });
});

test('sandboxSpecOf() refuses each namespace of the host', () => {
  for (const type of ['network', 'pid', 'ipc']) {
    const namespaces = podSpec.linux.namespaces.filter((each) => each.type !== type);
    assert.throws(() => pod({ linux: { ...podSpec.linux, namespaces } }), {
      kind: 'failedPrecondition',
      message: new RegExp(`namespaces: ${type}$`),
    });
  }
});

test('containerSpecOf() uses everything that containerd has read from the image', async () => {
  const spec = await container();
  assert.deepEqual([spec.name, spec.attempt, spec.image], ['main', 3, 'docker.io/library/busybox:1']);
  assert.deepEqual(spec.command, ['sh', '-c', 'true']);
  assert.deepEqual(spec.env, [
    { name: 'PATH', value: '/bin' },
    { name: 'EQUALS', value: 'a=b' },
  ]);
  assert.deepEqual(spec.resources, { memoryLimitBytes: 67_108_864, cpuLimitMillis: 200, cpuRequestMillis: 100 });
  const { security } = spec;
  assert.deepEqual([security.addCapabilities, security.dropCapabilities], [['CAP_CHOWN'], ['ALL']]);
  assert.deepEqual(security.supplementalGroups, [0, 10]);
  assert.equal(security.allowPrivilegeEscalation, false);
  assert.equal(security.privileged, false);
  assert.deepEqual([security.maskedPaths, security.readonlyPaths], [['/proc/keys'], ['/proc/sys']]);
  assert.deepEqual([spec.ownPidNamespace, spec.outputFifos], [true, {}]);
});

test('containerSpecOf() shares the pids of the pod, and refuses those of another container', async () => {
  const pids = (path: string) => ({ linux: { ...containerSpec.linux, namespaces: [{ type: 'pid', path }] } });
  assert.equal((await container(pids('/proc/7/ns/pid'))).ownPidNamespace, undefined);
  await assert.rejects(container(pids('/proc/4194305/ns/pid')), { kind: 'unsupported' });
});

test('containerSpecOf() mounts the pod’s files, and leaves out mounts that the guest makes itself', async () => {
  const bind = (destination: string, source: string, ...options: readonly string[]) => ({
    ...{ destination, source },
    type: 'bind',
    options: ['rbind', ...options],
  });
  const { mounts, terminationMessagePath } = await container({
    annotations: {
      ...containerSpec.annotations,
      'io.kubernetes.container.terminationMessagePath': '/dev/termination-log',
    },
    mounts: [
      ...containerSpec.mounts,
      bind('/etc/hosts', '/var/lib/containerd/sandboxes/pod-1/hosts', 'rw'),
      bind('/etc/hostname', '/kubelet/hostname', 'rprivate'),
      bind('/dev/shm', '/run/containerd/sandboxes/pod-1/shm'),
      bind('/dev/termination-log', '/kubelet/pods/u-1/containers/main/log'),
      bind('/data', '/data', 'ro', 'rslave'),
      bind('/all', '/all', 'rro', 'rshared'),
    ],
  });
  assert.equal(terminationMessagePath, '/dev/termination-log');
  const host = (path: string, propagation: string) => ({ kind: 'host', path, propagation });
  assert.deepEqual(mounts, [
    { source: host('/kubelet/hostname', 'private'), mountPath: '/etc/hostname', readOnly: false },
    { source: host('/data', 'hostToContainer'), mountPath: '/data', readOnly: true, recursiveReadOnly: false },
    { source: host('/all', 'bidirectional'), mountPath: '/all', readOnly: true, recursiveReadOnly: true },
  ]);
  const cgroup2 = { destination: '/other', type: 'tmpfs', source: 'tmpfs' };
  await assert.rejects(container({ mounts: [cgroup2] }), { kind: 'unsupported', message: /type tmpfs at \/other/ });
});

test('containerSpecOf() recognises a privileged container by its writable /sys', async () => {
  const mounts = [{ destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'rw'] }];
  assert.equal((await container({ mounts })).security.privileged, true);
});

test('containerSpecOf() refuses names, devices and profiles that a machine does not support', async () => {
  const named = { annotations: { 'io.kubernetes.cri.container-name': '../x' } };
  await assert.rejects(container(named), { kind: 'invalid' });
  const devices = [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229 }];
  await assert.rejects(container({ linux: { ...containerSpec.linux, devices } }), { kind: 'unsupported' });
  const confined = (apparmorProfile: string) => container({ process: { ...containerSpec.process, apparmorProfile } });
  await confined('cri-containerd.apparmor.d');
  await assert.rejects(confined('mine'), { kind: 'unsupported' });
});

test('resourcesOf() treats zero and negative limits as absent', () => {
  assert.deepEqual(resourcesOf(undefined), {});
  const none = { memory: { limit: -1 }, cpu: { quota: -1, period: 0, shares: 0 }, unified: {}, devices: [] };
  assert.deepEqual(resourcesOf(none), {});
  assert.deepEqual(resourcesOf({ unified: { 'pids.max': '100' }, devices: [] }), { pidsLimit: 100 });
  assert.deepEqual(resourcesOf({ unified: { 'pids.max': 'max' }, devices: [] }), {});
});

test('snapshotLayersOf() lists the layers of an overlay, topmost first', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-rootfs-'));
  const mount = (type: string, ...options: string[]) => [create(MountSchema, { type, source: '/src', options })];
  const overlay = mount('overlay', 'index=off', `upperdir=${directory}`, 'lowerdir=/2/fs:/1/fs');
  assert.deepEqual(await snapshotLayersOf('it', overlay), ['/2/fs', '/1/fs']);
  assert.deepEqual(await snapshotLayersOf('it', mount('bind', 'ro')), ['/src']);
  await writeFile(join(directory, 'written'), '');
  await assert.rejects(snapshotLayersOf('it', overlay), { kind: 'unsupported', message: /written/ });
  await assert.rejects(snapshotLayersOf('it', mount('ext4')), { kind: 'unsupported' });
  await assert.rejects(snapshotLayersOf('it', mount('format/overlay', 'lowerdir=/1')), { kind: 'unsupported' });
  await assert.rejects(snapshotLayersOf('it', []), { kind: 'unsupported' });
  await rm(directory, { recursive: true });
});

test('snapshotLayersOf() lists the files of the erofs snapshotter, topmost first', async () => {
  const mount = (type: string, source: string, ...options: string[]) => create(MountSchema, { type, source, options });
  const layer = (at: number) => mount('erofs', `/${at}/layer.erofs`, 'ro', 'loop');
  const overlay = mount('format/mkdir/overlay', 'overlay', 'upperdir=/none', 'lowerdir={{ overlay 0 1 }}');
  assert.deepEqual(await snapshotLayersOf('it', [layer(2), layer(1), overlay]), ['/2/layer.erofs', '/1/layer.erofs']);
  const blank = mount('mkfs/ext4', '/3/rwlayer.img', 'rw', 'loop');
  assert.deepEqual(await snapshotLayersOf('it', [blank, layer(1), overlay]), ['/1/layer.erofs']);
  assert.deepEqual(await snapshotLayersOf('it', [layer(1)]), ['/1/layer.erofs']);
  const merged = mount('erofs', '/2/fsmeta.erofs', 'ro', 'device=/1/layer.erofs', 'device=/2/layer.erofs');
  const bind = mount('format/bind', '{{ mount 0 }}', 'ro');
  const files = ['/3/layer.erofs', '/2/layer.erofs', '/1/layer.erofs'];
  assert.deepEqual(await snapshotLayersOf('it', [layer(3), merged, bind]), files);
  await assert.rejects(snapshotLayersOf('it', [layer(2), layer(1)]), { kind: 'unsupported' });
  const verified = mount('erofs', '/1/layer.erofs', 'ro', 'X-containerd.dmverity=/1/layer.erofs.dmverity');
  await assert.rejects(snapshotLayersOf('it', [verified]), { kind: 'unsupported', message: /dm-verity/ });
  await assert.rejects(snapshotLayersOf('it', [layer(1), overlay, overlay]), { kind: 'unsupported' });
});

test('metricsOf() returns the figures that containerd reads', () => {
  const figures = { pids: 3, cpuUsec: 1500.5, memoryBytes: 100, rssBytes: 40, inactiveFileBytes: 20, swapBytes: 0 };
  const { typeUrl, value } = metricsOf({ ...figures, pageFaults: 5, majorPageFaults: 1, memoryLimitBytes: 1000 });
  assert.equal(typeUrl, 'io.containerd.cgroups.v2.Metrics');
  const { memory, cpu } = fromBinary(MetricsSchema, value);
  assert.deepEqual(
    [memory?.usage, memory?.inactiveFile, memory?.usageLimit, cpu?.usageUsec],
    [100n, 20n, 1000n, 1500n],
  );
});
