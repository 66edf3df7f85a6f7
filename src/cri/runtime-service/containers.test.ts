import assert from 'node:assert/strict';
import { access, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { PodvmError } from '#base/errors.ts';
import { is } from '../testing/grpc-client.ts';
import {
  ContainerState,
  MountPropagation,
  NamespaceMode,
  PodSandboxState,
  SecurityProfile_ProfileType as ProfileType,
  SupplementalGroupsPolicy,
} from '../schema/api_pb.ts';
import { containerConfig, openFakeNode, podConfig, type FakeNode } from '../testing/fake-node.ts';
import { measureWork } from '../../../test/busy-time.ts';

const stateOf = async ({ runtime }: FakeNode, containerId: string) =>
  (await runtime.containerStatus({ containerId })).status?.state;

/** Waits until a container is in a state; the test's deadline limits the wait. */
async function becomes(node: FakeNode, containerId: string, state: ContainerState): Promise<void> {
  while ((await stateOf(node, containerId)) !== state);
}

test('createContainer() refuses missing or unsupported parts with a message, and leaves nothing', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  const refuses = async (change: object, code: number, words: RegExp) => {
    const config = { ...containerConfig, ...change };
    await assert.rejects(runtime.createContainer({ podSandboxId, config }), is(code, words));
  };
  await assert.rejects(runtime.createContainer({ podSandboxId }), is(status.INVALID_ARGUMENT, /no config/));
  await assert.rejects(
    runtime.createContainer({ podSandboxId: 'nothing', config: containerConfig }),
    is(status.NOT_FOUND, /pod sandbox "nothing"/),
  );
  await refuses({ metadata: undefined }, status.INVALID_ARGUMENT, /no metadata/);
  await refuses({ metadata: { name: '../x' } }, status.INVALID_ARGUMENT, /letters, digits/);
  await refuses({ metadata: { name: '..' } }, status.INVALID_ARGUMENT, /letters, digits/);
  await refuses({ image: undefined }, status.INVALID_ARGUMENT, /has no image/);
  await refuses({ image: { image: 'missing' } }, status.NOT_FOUND, /missing/);
  await refuses({ envs: [{ key: 'A', value: Buffer.of(0xff) }] }, status.INVALID_ARGUMENT, /not UTF-8/);
  const device = (more: object) => ({
    devices: [{ hostPath: '/dev/null', containerPath: '/dev/x', permissions: 'rwm', ...more }],
  });
  await refuses(device({}), status.UNIMPLEMENTED, /neither a block device nor an image file/);
  await refuses(device({ hostPath: '/no/such/device' }), status.NOT_FOUND, /no such file or device/);
  await refuses(device({ permissions: 'x' }), status.INVALID_ARGUMENT, /"rwm"/);
  await refuses(device({ containerPath: 'x' }), status.INVALID_ARGUMENT, /absolute paths/);
  await refuses({ CDIDevices: [{ name: 'vendor.com/gpu=0' }] }, status.UNIMPLEMENTED, /CDI/);
  const mounts = (mount: object) => ({ mounts: [{ containerPath: '/data', hostPath: '/srv', ...mount }] });
  await refuses(mounts({ hostPath: 'srv' }), status.INVALID_ARGUMENT, /absolute host path/);
  await refuses(mounts({ hostPath: '/no/such/path' }), status.NOT_FOUND, /\/no\/such\/path: no such file/);
  await refuses(mounts({ hostPath: '/dev/null' }), status.UNIMPLEMENTED, /it is a character device/);
  await refuses(mounts({ propagation: 2 }), status.UNIMPLEMENTED, /cannot appear on the host/);
  const security = (securityContext: object) => ({ linux: { securityContext } });
  for (const kind of ['network', 'pid', 'ipc']) {
    const namespaceOptions = { [kind]: NamespaceMode.NODE };
    await refuses(security({ namespaceOptions }), status.UNIMPLEMENTED, /host(Network|PID|IPC) is not supported/);
  }
  await refuses(security({ runAsGroup: { value: 5n } }), status.INVALID_ARGUMENT, /run_as_group needs a user/);
  await refuses(security({ runAsUser: { value: -1n } }), status.INVALID_ARGUMENT, /run_as_user.*got -1/);
  await refuses(security({ apparmor: { profileType: ProfileType.Localhost } }), status.UNIMPLEMENTED, /AppArmor/);
  const local = (localhostRef: string) => ({ seccomp: { profileType: ProfileType.Localhost, localhostRef } });
  await refuses(security(local('relative')), status.INVALID_ARGUMENT, /not absolute/);
  await refuses(security(local('/nowhere/x.json')), status.NOT_FOUND, /cannot be read/);
  const logsIn = { ...podConfig, logDirectory: '/var/log/pods/x' };
  await assert.rejects(
    runtime.createContainer({
      podSandboxId,
      sandboxConfig: logsIn,
      config: { ...containerConfig, logPath: '../../../etc/passwd' },
    }),
    is(status.INVALID_ARGUMENT, /inside an absolute directory/),
  );
  assert.deepEqual((await runtime.listContainers()).containers, []);
});

test('a container passes its states, and its status has the fields that a kubelet reads', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  const sandboxConfig = { ...podConfig, logDirectory: join(node.directory, 'logs') };
  const config = { ...containerConfig, logPath: 'main/0.log', annotations: { note: 'x' } };
  const { containerId } = await runtime.createContainer({ podSandboxId, config, sandboxConfig });
  assert.equal(await stateOf(node, containerId), ContainerState.CONTAINER_CREATED);
  await access(join(node.directory, 'logs/main/0.log'));
  await runtime.startContainer({ containerId });
  await runtime.startContainer({ containerId }); // the retry of a call that timed out
  assert.equal(await stateOf(node, containerId), ContainerState.CONTAINER_RUNNING);
  node.exit(containerId, 7);
  await becomes(node, containerId, ContainerState.CONTAINER_EXITED);
  const { status: seen } = await runtime.containerStatus({ containerId });
  assert.equal(seen?.exitCode, 7);
  assert.equal(seen.reason, 'Error');
  const { createdAt, startedAt, finishedAt } = seen;
  assert.ok(createdAt > 0n && startedAt >= createdAt && finishedAt >= startedAt, 'times in order, in nanoseconds');
  assert.ok(finishedAt <= BigInt(Date.now()) * 1_000_000n);
  assert.equal(seen.image?.image, 'busybox');
  assert.equal(seen.imageId, node.images.get('busybox')?.id);
  assert.deepEqual(seen.labels, config.labels);
  assert.deepEqual(seen.annotations, config.annotations);
  assert.equal(seen.logPath, join(node.directory, 'logs/main/0.log'));
  await assert.rejects(runtime.startContainer({ containerId }), is(status.FAILED_PRECONDITION, /has ended/));
  await assert.rejects(runtime.reopenContainerLog({ containerId }), is(status.FAILED_PRECONDITION, /reopen/));
});

test('createContainer() passes the config to the guest', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const profile = join(node.directory, 'seccomp.json');
  await writeFile(profile, '{"defaultAction":"SCMP_ACT_ALLOW"}');
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  const envs = [{ key: 'A', value: Buffer.from('ü=1') }];
  const securityContext = {
    runAsUser: { value: 1000n },
    runAsGroup: { value: 50n },
    supplementalGroups: [7n],
    supplementalGroupsPolicy: SupplementalGroupsPolicy.Strict,
    readonlyRootfs: true,
    noNewPrivs: true,
    capabilities: { addCapabilities: ['NET_ADMIN'], dropCapabilities: ['ALL'] },
    maskedPaths: ['/bin/ls'],
    seccomp: { profileType: ProfileType.Localhost, localhostRef: profile },
  };
  const resources = { memoryLimitInBytes: 2n ** 26n, cpuQuota: 50_000n, cpuPeriod: 100_000n, cpuShares: 512n };
  const config = {
    ...containerConfig,
    args: ['-c', 'true'],
    envs,
    workingDir: '/tmp',
    linux: { securityContext, resources: { ...resources, oomScoreAdj: 900n } },
  };
  parts.guest.answers.set('createContainer', () => ({ pid: 2, uid: 1000, gid: 50, groups: [7], phases: [] }));
  const { containerId } = await runtime.createContainer({ podSandboxId, config });
  const { user } = (await runtime.containerStatus({ containerId })).status ?? {};
  assert.deepEqual([user?.linux?.uid, user?.linux?.gid, user?.linux?.supplementalGroups], [1000n, 50n, [50n, 7n]]);
  const { params } = parts.guest.calls.findLast(({ method }) => method === 'createContainer') ?? {};
  assert.ok(params);
  const process = params['process'] as Record<string, unknown>;
  assert.deepEqual(process['args'], ['sh', '-c', 'true']);
  assert.deepEqual(process['env'], ['A=ü=1']);
  assert.equal(process['cwd'], '/tmp');
  assert.equal(process['user'], '1000');
  assert.equal(process['group'], 50);
  assert.deepEqual(process['supplementalGroups'], [7]);
  assert.equal(process['supplementalGroupsPolicy'], 'strict');
  assert.deepEqual(process['capabilities'], ['CAP_NET_ADMIN']);
  assert.equal(process['noNewPrivileges'], true);
  assert.equal(process['oomScoreAdj'], 900);
  assert.equal(params['readOnlyRootfs'], true);
  assert.deepEqual(params['maskedPaths'], ['/bin/ls']);
  assert.deepEqual(params['seccomp'], { defaultAction: 'SCMP_ACT_ALLOW' });
  assert.deepEqual(params['resources'], {
    memoryLimitBytes: 2 ** 26,
    cpuQuotaUs: 50_000,
    cpuPeriodUs: 100_000,
    cpuShares: 512,
  });
});

test('one of two concurrent creates of a name is refused, and a removed name can be used again', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  const create = () => runtime.createContainer({ podSandboxId, config: containerConfig });
  const both = await Promise.allSettled([create(), create()]);
  const refused = both.filter((each) => each.status === 'rejected');
  assert.equal(refused.length, 1);
  assert.ok(is(status.ALREADY_EXISTS, /exists already/)(refused[0]?.reason));
  const [made] = (await runtime.listContainers()).containers;
  await runtime.removeContainer({ containerId: made?.id ?? '' });
  await create();
  assert.equal((await runtime.listContainers()).containers.length, 1);
});

test('a cancelled createContainer() leaves no container, and its name is free', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  const stop = new AbortController();
  parts.before = async (step, signal) => {
    if (step !== 'call createContainer') return;
    stop.abort();
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    signal.throwIfAborted();
  };
  const request = { podSandboxId, config: containerConfig };
  await assert.rejects(runtime.createContainer(request, { signal: stop.signal }), is(status.CANCELLED));
  parts.before = async () => {};
  while ((await runtime.createContainer(request).catch(() => undefined)) === undefined);
  assert.equal((await runtime.listContainers()).containers.length, 1);
});

test('startContainer() and the status report a command that cannot run', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  parts.guest.answers.set('createContainer', () => {
    throw new PodvmError('failedPrecondition', 'exec: "nope": not found');
  });
  const { containerId } = await runtime.createContainer({ podSandboxId, config: containerConfig });
  await assert.rejects(runtime.startContainer({ containerId }), is(status.FAILED_PRECONDITION, /"nope": not found/));
  const { status: seen } = await runtime.containerStatus({ containerId });
  assert.equal(seen?.state, ContainerState.CONTAINER_EXITED);
  assert.equal(seen.reason, 'StartError');
  assert.equal(seen.exitCode, 127);
  assert.match(seen.message, /not found/);
});

test('stopContainer() and removeContainer() accept missing and ended containers', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  await runtime.stopContainer({ containerId: 'nothing' });
  await runtime.removeContainer({ containerId: 'nothing' });
  await assert.rejects(runtime.stopContainer(), is(status.INVALID_ARGUMENT, /no id/));
  const { containerId } = await node.running();
  const signals: unknown[] = [];
  parts.guest.answers.set('signalContainer', ({ signal }) => {
    signals.push(signal);
    node.exit(containerId, 0);
  });
  await runtime.stopContainer({ containerId, timeout: 10n });
  await runtime.stopContainer({ containerId, timeout: 10n });
  assert.deepEqual(signals, [15]);
  await runtime.removeContainer({ containerId });
  await runtime.removeContainer({ containerId });
  assert.deepEqual((await runtime.listContainers()).containers, []);
});

test('removeContainer() kills a running container', async () => {
  await using node = await openFakeNode();
  const { containerId } = await node.running();
  node.parts.guest.answers.set('signalContainer', ({ signal }) => {
    if (signal === 9) node.exit(containerId, 137);
  });
  await node.runtime.removeContainer({ containerId });
  assert.deepEqual((await node.runtime.listContainers()).containers, []);
});

const withTerminationLog = (hostPath: string) => ({
  ...containerConfig,
  annotations: { 'io.kubernetes.container.terminationMessagePath': '/dev/termination-log' },
  mounts: [{ containerPath: '/dev/termination-log', hostPath }],
});

test('the termination message is in its file before the container is reported as ended', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const hostPath = join(node.directory, 'message');
  await writeFile(hostPath, '');
  const { containerId } = await node.running(podConfig, withTerminationLog(hostPath));
  const create = parts.guest.calls.findLast(({ method }) => method === 'createContainer');
  assert.equal(create?.params['terminationLogPath'], '/dev/termination-log');
  parts.guest.answers.set('readFile', () => ({ data: Buffer.from('no space').toString('base64'), truncated: false }));
  node.exit(containerId, 1);
  await becomes(node, containerId, ContainerState.CONTAINER_EXITED);
  assert.equal(await readFile(hostPath, 'utf8'), 'no space');
  const { status: seen } = await runtime.containerStatus({ containerId });
  assert.equal(seen?.mounts[0]?.hostPath, hostPath);
});

test('the termination message is in its file also when the machine has ended', async () => {
  await using node = await openFakeNode();
  const { parts } = node;
  const hostPath = join(node.directory, 'message');
  await writeFile(hostPath, '');
  const { containerId } = await node.running(podConfig, withTerminationLog(hostPath));
  parts.guest.tell({ kind: 'terminationMessage', containerId, data: Buffer.from('no space').toString('base64') });
  parts.killMachine('it was killed');
  await becomes(node, containerId, ContainerState.CONTAINER_EXITED);
  assert.equal(await readFile(hostPath, 'utf8'), 'no space');
  const { status: seen } = await node.runtime.containerStatus({ containerId });
  assert.equal(seen?.message, 'it was killed');
});

test('listContainers() filters by id, pod, state and labels; streamContainers() lists the same', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const { podSandboxId, containerId: a } = await node.running();
  const other = { ...containerConfig, metadata: { name: 'other', attempt: 0 }, labels: { part: 'other' } };
  const { containerId: b } = await runtime.createContainer({ podSandboxId, config: other });
  const filters = [
    [{}, [b, a]],
    [{ id: a }, [a]],
    [{ id: a.slice(0, 13) }, [a]],
    [{ id: 'nothing' }, []],
    [{ podSandboxId }, [b, a]],
    [{ podSandboxId: 'nothing' }, []],
    [{ state: { state: ContainerState.CONTAINER_CREATED } }, [b]],
    [{ labelSelector: { part: 'main' } }, [a]],
  ] as const;
  for (const [filter, wanted] of filters) {
    assert.deepEqual(
      (await runtime.listContainers({ filter })).containers.map(({ id }) => id),
      wanted,
    );
    const streamed: string[] = [];
    for await (const { containers } of runtime.streamContainers({ filter }))
      streamed.push(...containers.map(({ id }) => id));
    assert.deepEqual(streamed, wanted);
  }
});

test('updateContainerResources() changes the given limits, and the status shows them', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const linux = { resources: { memoryLimitInBytes: 2n ** 26n, cpuShares: 512n } };
  const { containerId } = await node.running(podConfig, { ...containerConfig, linux });
  await runtime.updateContainerResources({ containerId, linux: { memoryLimitInBytes: 2n ** 27n } });
  const asked = parts.guest.calls.findLast(({ method }) => method === 'updateContainer');
  assert.deepEqual(asked?.params['resources'], { memoryLimitBytes: 2 ** 27 });
  const { status: seen } = await runtime.containerStatus({ containerId });
  assert.equal(seen?.resources?.linux?.memoryLimitInBytes, 2n ** 27n);
  assert.equal(seen.resources.linux.cpuShares, 512n);
  await assert.rejects(
    runtime.updateContainerResources({ containerId, linux: { memoryLimitInBytes: 5n } }),
    is(status.INVALID_ARGUMENT, /at least/),
  );
  await assert.rejects(runtime.updateContainerResources({ containerId }), is(status.INVALID_ARGUMENT, /no Linux/));
});

test("containerStatus() echoes the mounts of the config, and has each one's mode in the verbose details", async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const propagating = MountPropagation.PROPAGATION_HOST_TO_CONTAINER;
  const mounts = [{ containerPath: '/data', hostPath: node.directory, readonly: true, propagation: propagating }];
  const { containerId } = await node.running(podConfig, { ...containerConfig, mounts });
  const made = parts.guest.calls.findLast(({ method }) => method === 'createVolume');
  assert.equal(made?.params['kind'], 'share');
  const { status: seen, info } = await runtime.containerStatus({ containerId, verbose: true });
  const { containerPath, hostPath, readonly, propagation } = seen?.mounts[0] ?? {};
  assert.deepEqual([{ containerPath, hostPath, readonly, propagation }], mounts);
  const details: unknown = JSON.parse(info?.['info'] ?? '');
  assert.deepEqual((details as { mounts: unknown }).mounts, [{ mountPath: '/data', mode: 'share' }]); // SAFE: checked by the test
});

test('reopenContainerLog() continues in a new file', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  const logs = join(node.directory, 'logs');
  await mkdir(logs);
  const pod = { ...podConfig, logDirectory: logs };
  const { containerId } = await node.running(pod, { ...containerConfig, logPath: '0.log' });
  await rename(join(logs, '0.log'), join(logs, '0.log.1'));
  await runtime.reopenContainerLog({ containerId });
  await access(join(logs, '0.log'));
});

test('createContainer() accepts arguments and variables up to the kernel’s limit, and refuses more at once', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  const envsOf = (count: number) =>
    Array.from({ length: count }, (_, at) => ({ key: `V${at}`, value: Buffer.alloc(100_000, 'x') }));
  const create = (name: string, change: object) =>
    runtime.createContainer({ podSandboxId, config: { ...containerConfig, metadata: { name }, ...change } });
  await create('large', { envs: envsOf(20) });
  const asked = parts.guest.calls.findLast(({ method }) => method === 'createContainer');
  assert.equal((asked?.params['process'] as { env: string[] } | undefined)?.env.length, 20);
  const workMs = measureWork();
  const refused = is(status.INVALID_ARGUMENT, /arguments and variables are too long \(E2BIG\)/);
  await assert.rejects(create('huge', { envs: envsOf(100) }), refused);
  await assert.rejects(create('words', { args: Array<string>(150).fill('x'.repeat(100_000)) }), refused);
  assert.ok(workMs() < 20_000, 'twenty-five megabytes are refused within 20 s');
});

test('limits above the node’s resources are reduced, not refused', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const linux = { memoryLimitInBytes: 2n ** 60n, cpuQuota: 2n ** 60n, cpuPeriod: 100_000n };
  const { podSandboxId } = await runtime.runPodSandbox({ config: { ...podConfig, linux: { resources: linux } } });
  const config = { ...containerConfig, linux: { resources: linux } };
  const { containerId } = await runtime.createContainer({ podSandboxId, config });
  await runtime.startContainer({ containerId });
  await runtime.updateContainerResources({ containerId, linux });
  await runtime.updatePodSandboxResources({ podSandboxId, resources: linux });
  const methods = ['connect', 'createContainer', 'updateContainer', 'updatePod'];
  for (const { method, params } of parts.guest.calls) {
    if (!methods.includes(method)) continue;
    const { memoryLimitBytes = 0, cpuQuotaUs = 0 } = params['resources'] as Record<string, number>;
    assert.ok(memoryLimitBytes > 0 && memoryLimitBytes <= totalmem(), `${method}: ${memoryLimitBytes}`);
    assert.equal(cpuQuotaUs, availableParallelism() * 100_000, method);
  }
});

test('startContainer() fails with the words of a guest that cannot be connected, whose pod is then not ready', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { promise, reject } = Promise.withResolvers<void>();
  promise.catch(() => undefined);
  parts.before = async (step) => {
    if (step === 'call configure') parts.guest.delays.set('connect', promise);
  };
  const { podSandboxId } = await runtime.runPodSandbox({ config: podConfig });
  const { containerId } = await runtime.createContainer({ podSandboxId, config: containerConfig });
  const started = runtime.startContainer({ containerId });
  reject(new PodvmError('failedPrecondition', 'Cannot add route ::/0: the kernel answered errno 22'));
  const words = /Cannot add route ::\/0: the kernel answered errno 22/; // the sandbox may have failed before the call came
  await assert.rejects(started, is(status.FAILED_PRECONDITION, words));
  const isReady = async () =>
    (await runtime.podSandboxStatus({ podSandboxId })).status?.state === PodSandboxState.SANDBOX_READY;
  while (await isReady());
  assert.equal(await stateOf(node, containerId), ContainerState.CONTAINER_EXITED);
});
