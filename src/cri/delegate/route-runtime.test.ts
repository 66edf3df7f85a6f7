import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { status } from '@grpc/grpc-js';
import { PodvmError } from '#base/errors.ts';
import {
  ContainerEventType,
  NamespaceMode,
  PodSandboxState,
  PodSandboxStatusRequestSchema,
  RunPodSandboxRequestSchema,
  RunPodSandboxResponseSchema,
} from '../schema/api_pb.ts';
import { openDelegateNode } from '../testing/delegate-node.ts';
import { hasUnknown, withUnknown } from '../testing/fake-delegate.ts';
import { mergeStreams } from './merge-events.ts';
import { containerConfig, podConfig } from '../testing/fake-node.ts';
import { is } from '../testing/grpc-client.ts';

async function openNode() {
  const place = await openDelegateNode();
  const { runtime } = place.node;
  return {
    ...place,
    runHostPod: async (name = 'kube-proxy') => (await runtime.runPodSandbox({ config: hostPod(name) })).podSandboxId,
  };
}

const hostPod = (name: string, namespace = 'kube-system') => ({
  metadata: { name, namespace, uid: `uid-${name}`, attempt: 0 },
  labels: { app: name },
  linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } },
});

const container = { metadata: { name: 'main' }, image: { image: 'busybox' } };
const image = { id: 'sha256:f', repoTags: ['busybox'] };

test("a pod of the host's network goes to the delegate with all later calls, and lists show both runtimes", async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const { runtime } = node;
  delegate.images.set(image.id, image);
  const own = await node.running();
  const podSandboxId = await place.runHostPod();
  const { containerId } = await runtime.createContainer({ podSandboxId, config: container });
  await runtime.startContainer({ containerId });
  assert.deepEqual([...delegate.pods.keys(), ...delegate.containers.keys()], [podSandboxId, containerId]);

  const { items } = await runtime.listPodSandbox({});
  assert.deepEqual(items.map(({ id }) => id).sort(), [own.podSandboxId, podSandboxId].sort());
  const { containers } = await runtime.listContainers({});
  assert.deepEqual(containers.map(({ id }) => id).sort(), [own.containerId, containerId].sort());
  assert.equal(String((await runtime.execSync({ containerId, cmd: ['x'] })).stdout.length > 0), 'true');
  assert.equal((await runtime.exec({ containerId })).url, 'http://127.0.0.1:1/exec/fake');
  assert.equal((await runtime.attach({ containerId })).url, 'http://127.0.0.1:1/attach/fake');
  assert.equal((await runtime.portForward({ podSandboxId })).url, 'http://127.0.0.1:1/portforward/fake?relayed');
  assert.match(
    (await runtime.exec({ containerId: own.containerId, cmd: ['x'], stdout: true })).url,
    /^http:\/\/127\.0\.0\.1\/\d/,
  );
  assert.equal((await runtime.containerStatus({ containerId })).status?.id, containerId);
  assert.equal((await runtime.podSandboxStats({ podSandboxId })).stats?.attributes?.id, podSandboxId);
  assert.equal((await runtime.containerStats({ containerId })).stats?.attributes?.id, containerId);
  const { stats } = await runtime.listContainerStats({});
  assert.deepEqual(stats.map(({ attributes }) => attributes?.id ?? '').sort(), [own.containerId, containerId].sort());
  const only = await runtime.listContainerStats({ filter: { id: own.containerId } });
  assert.deepEqual(
    only.stats.map(({ attributes }) => attributes?.id),
    [own.containerId],
  );
  const streamed: string[] = [];
  for await (const { podSandboxes } of runtime.streamPodSandboxes({}))
    streamed.push(...podSandboxes.map(({ id }) => id));
  assert.deepEqual(streamed.sort(), [own.podSandboxId, podSandboxId].sort());

  await runtime.stopPodSandbox({ podSandboxId });
  assert.equal(
    (await runtime.podSandboxStatus({ podSandboxId: own.podSandboxId })).status?.state,
    PodSandboxState.SANDBOX_READY,
  );
  await runtime.removeContainer({ containerId });
  await runtime.removePodSandbox({ podSandboxId });
  assert.deepEqual([delegate.pods.size, delegate.containers.size], [0, 0]);
  assert.deepEqual(
    (await runtime.listPodSandbox({})).items.map(({ id }) => id),
    [own.podSandboxId],
  );
});

test('lists of both runtimes are filtered by id, state, labels and pod', async () => {
  await using place = await openNode();
  const { runtime } = place.node;
  place.delegate.images.set(image.id, image);
  const own = await place.node.running();
  const proxy = await place.runHostPod('kube-proxy');
  const exporter = await place.runHostPod('exporter');
  await runtime.stopPodSandbox({ podSandboxId: exporter });
  const ids = async (filter: object) => (await runtime.listPodSandbox({ filter })).items.map(({ id }) => id);
  assert.deepEqual(await ids({ id: proxy.slice(0, 13) }), [proxy]);
  assert.deepEqual(await ids({ state: { state: PodSandboxState.SANDBOX_NOTREADY } }), [exporter]);
  assert.deepEqual(await ids({ labelSelector: { app: 'kube-proxy' } }), [proxy]);
  assert.deepEqual(await ids({ labelSelector: { app: 'web' } }), [own.podSandboxId]);
  const { containerId } = await runtime.createContainer({ podSandboxId: proxy, config: container });
  const of = async (podSandboxId: string) =>
    (await runtime.listContainers({ filter: { podSandboxId } })).containers.map(({ id }) => id);
  assert.deepEqual(await of(proxy), [containerId]);
  assert.deepEqual(await of(own.podSandboxId), [own.containerId]);
  const status = await runtime.podSandboxStatus({ podSandboxId: own.podSandboxId.slice(0, 6) });
  assert.equal(status.status?.id, own.podSandboxId, 'a prefix of one of ours');
});

test('a pod is refused that may not use the delegate, and one with a handler of the delegate runs there', async () => {
  await using place = await openNode();
  const { runtime } = place.node;
  await assert.rejects(
    runtime.runPodSandbox({ config: hostPod('agent', 'default') }),
    is(status.UNIMPLEMENTED, /hostNetwork is not supported.*setting delegate.*delegateNamespaces/),
  );
  const runc = {
    config: { ...podConfig, metadata: { ...podConfig.metadata, namespace: 'kube-system' } },
    runtimeHandler: 'runc',
  };
  const { podSandboxId } = await runtime.runPodSandbox(runc);
  assert.equal(place.delegate.pods.get(podSandboxId)?.runtimeHandler, 'runc');
  await assert.rejects(
    runtime.runPodSandbox({ config: podConfig, runtimeHandler: 'runc' }),
    is(status.PERMISSION_DENIED, /"runc".*delegateNamespaces/),
  );
});

test('a container whose machine cannot have a mount is refused, with what the delegate can do', async () => {
  await using place = await openNode();
  const { podSandboxId } = await place.node.runtime.runPodSandbox({ config: podConfig });
  const config = { ...containerConfig, CDIDevices: [{ name: 'vendor/gpu=0' }] };
  await assert.rejects(
    place.node.runtime.createContainer({ podSandboxId, config }),
    is(status.UNIMPLEMENTED, /CDI devices are not supported.*Remove the devices.*handler of the delegate/),
  );
});

test('fields that our schema does not know reach the delegate, and come back', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const request = create(RunPodSandboxRequestSchema, { config: hostPod('new') });
  const bytes = withUnknown(toBinary(RunPodSandboxRequestSchema, request));
  const answer = await node.raw('/runtime.v1.RuntimeService/RunPodSandbox', bytes);
  const { podSandboxId } = fromBinary(RunPodSandboxResponseSchema, answer);
  assert.equal(delegate.pods.get(podSandboxId)?.labels?.['sawUnknown'], 'yes');
  const ask = toBinary(PodSandboxStatusRequestSchema, create(PodSandboxStatusRequestSchema, { podSandboxId }));
  assert.ok(hasUnknown(await node.raw('/runtime.v1.RuntimeService/PodSandboxStatus', ask)));
});

test("while the delegate is away its pods' calls fail as unavailable, and ours go on; it is found again", async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const { runtime } = node;
  const podSandboxId = await place.runHostPod();
  const own = await node.running();
  const both = [own.podSandboxId, podSandboxId].sort();
  const listed = async () => (await runtime.listPodSandbox({})).items.map(({ id }) => id).sort();
  assert.deepEqual(await listed(), both);
  await delegate.stop();
  const unavailable = is(
    status.UNAVAILABLE,
    /setting delegate at .*containerd\.sock: connect ENOENT [^ ]*containerd\.sock\. Start that runtime/,
  );
  await assert.rejects(runtime.podSandboxStatus({ podSandboxId }), unavailable);
  await assert.rejects(runtime.stopPodSandbox({ podSandboxId }), unavailable);
  await assert.rejects(runtime.runPodSandbox({ config: hostPod('other') }), unavailable);
  assert.deepEqual(await listed(), both, 'it did not lose its pods');
  assert.deepEqual(
    (await runtime.listContainers({})).containers.map(({ id }) => id),
    [own.containerId],
  );
  assert.equal((await runtime.listContainerStats({})).stats.length, 1);
  const { status: conditions } = await runtime.status({});
  assert.deepEqual(
    conditions?.conditions.map((each) => [each.type, each.status, each.reason]),
    [
      ['RuntimeReady', true, ''],
      ['NetworkReady', true, ''],
      ['DelegateReady', false, 'DelegateAway'],
    ],
  );
  await runtime.stopPodSandbox({ podSandboxId: own.podSandboxId });
  await runtime.removePodSandbox({ podSandboxId: own.podSandboxId });
  await runtime.removePodSandbox({ podSandboxId: own.podSandboxId }); // ours, although it is gone
  await delegate.start();
  const giveUp = Date.now() + 60_000;
  for (;;) {
    const answer = await runtime.podSandboxStatus({ podSandboxId }).catch(() => undefined);
    if (answer?.status?.id === podSandboxId) break;
    assert.ok(Date.now() < giveUp, 'the delegate is not found again');
  }
  assert.deepEqual(await listed(), [podSandboxId]);
});

test('the next daemon lists the pods of a delegate that is still away', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const podSandboxId = await place.runHostPod();
  const ids = async () => (await node.runtime.listPodSandbox({})).items.map(({ id }) => id);
  assert.deepEqual(await ids(), [podSandboxId]);
  await node.restart(() => delegate.stop());
  assert.deepEqual(await ids(), [podSandboxId]);
  await node.restart(() => writeFile(join(node.directory, 'cri/delegate/pods'), 'torn'));
  assert.deepEqual(await ids(), []);
});

test('a delegate that hangs does not hold up lists, and is cancelled with its caller', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const podSandboxId = await place.runHostPod();
  assert.equal((await node.runtime.listPodSandbox({})).items.length, 1);
  for (const verb of ['listPodSandbox', 'podSandboxStatus']) delegate.hanging.add(verb);
  assert.equal((await node.runtime.listPodSandbox({})).items.length, 1);
  const late = node.runtime.podSandboxStatus({ podSandboxId }, { deadline: Date.now() + 200 });
  await assert.rejects(late, is(status.DEADLINE_EXCEEDED));
});

test("an error of the delegate keeps its code and words, and does not cost our pods' part of lists", async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const own = await node.running();
  delegate.failing.set('listContainerStats', new PodvmError('internal', 'one shim is gone'));
  delegate.failing.set('runPodSandbox', new PodvmError('exhausted', 'no \u0007 room'));
  assert.deepEqual(
    (await node.runtime.listContainerStats({})).stats.map(({ attributes }) => attributes?.id),
    [own.containerId],
  );
  await assert.rejects(place.runHostPod(), is(status.RESOURCE_EXHAUSTED, /^no \\u0007 room$/));
  await assert.rejects(
    node.runtime.containerStatus({ containerId: 'f'.repeat(64) }),
    is(status.NOT_FOUND, /fake: no f/),
  );
});

test('Status, RuntimeConfig and Version are those of one runtime', async () => {
  await using place = await openNode();
  const { runtime } = place.node;
  const { status: conditions, runtimeHandlers, features, info } = await runtime.status({ verbose: true });
  assert.deepEqual(
    conditions?.conditions.map(({ type, status: isTrue, message }) => [type, isTrue, message]),
    [
      ['RuntimeReady', true, ''],
      ['NetworkReady', true, ''],
      ['DelegateReady', true, 'NetworkReady is false: no CNI'],
    ],
  );
  assert.deepEqual(
    runtimeHandlers.map(({ name }) => name),
    ['', 'podvm', 'podvm-namespace', 'podvm-own-boot', 'runc'],
  );
  assert.equal(features?.supplementalGroupsPolicy, false, 'only one of them has it');
  assert.equal(info['delegate'], '{"config":"{}"}');
  assert.equal((await runtime.version()).runtimeName, 'podvm');
  assert.equal((await runtime.runtimeConfig()).linux?.cgroupDriver, 0, "the delegate's");
  await place.delegate.stop();
  assert.equal((await runtime.runtimeConfig()).linux?.cgroupDriver, 0, 'the last one');
});

test('metrics of the delegate have the labels of our descriptors', async () => {
  await using place = await openNode();
  const { runtime } = place.node;
  const podSandboxId = await place.runHostPod();
  const { descriptors } = await runtime.listMetricDescriptors();
  const named = (name: string) => descriptors.filter((each) => each.name === name).map(({ labelKeys }) => labelKeys);
  const [keys = []] = named('container_cpu_usage_seconds_total');
  assert.deepEqual(named('fake_only'), [['id']]);
  const { podMetrics } = await runtime.listPodSandboxMetrics();
  const [usage, other] = podMetrics.find((each) => each.podSandboxId === podSandboxId)?.metrics ?? [];
  assert.deepEqual(
    usage?.labelValues,
    keys.map((key) => ({ id: podSandboxId, pod: 'a-pod' })[key] ?? ''),
  );
  assert.deepEqual(other?.labelValues, [podSandboxId]);
});

test('events of both runtimes come in one stream, also after the delegate was restarted', async () => {
  await using place = await openNode();
  const { node, delegate } = place;
  const stop = new AbortController();
  const seen = new Set<string>();
  let look = () => {};
  const sees = (id: string) =>
    new Promise<void>((resolve) => {
      look = () => {
        if (seen.has(id)) resolve();
      };
      look();
    });
  const reading = (async () => {
    for await (const { containerId } of node.runtime.getContainerEvents({}, { signal: stop.signal })) {
      seen.add(containerId);
      look();
    }
  })().catch(() => {});
  const listens = async (count = 1) => {
    const giveUp = Date.now() + 60_000;
    while (delegate.listeners !== count) {
      assert.ok(Date.now() < giveUp, `not ${count} but ${delegate.listeners} listeners`);
      await new Promise(setImmediate);
    }
  };
  await listens();
  const tell = (containerId: string) =>
    delegate.tell({ containerId, containerEventType: ContainerEventType.CONTAINER_STARTED_EVENT });
  tell('first');
  await sees('first');
  const { podSandboxId } = await node.running();
  await sees(podSandboxId);
  await delegate.stop();
  await delegate.start();
  await listens();
  tell('second');
  await sees('second');
  stop.abort();
  await reading;
  await listens(0);
});

test('events of the delegate are no longer read when ours have ended', async () => {
  const own = (async function* (): AsyncGenerator<number> {})();
  const ended = Promise.withResolvers<void>();
  const theirs = (async function* () {
    try {
      yield 1;
      yield 2;
    } finally {
      ended.resolve();
    }
  })();
  const seen: number[] = [];
  for await (const each of mergeStreams<number>([own, theirs])) seen.push(each);
  await ended.promise;
  assert.ok(seen.length <= 1);
});
