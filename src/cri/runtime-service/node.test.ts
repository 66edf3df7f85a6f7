import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { is } from '../rpc/scripted-client.ts';
import { CgroupDriver, ContainerEventType } from '../schema/api_pb.ts';
import { containerConfig, openScriptedNode, podConfig } from '../scripted-node.ts';

const figures = {
  memoryBytes: 4096,
  memoryPeakBytes: 8192,
  inactiveFileBytes: 1096,
  oomKills: 0,
  cpuUsec: 1500,
  pids: 3,
};

test('the node says who it is, that it is ready, and only what it can', async () => {
  await using node = await openScriptedNode();
  const { runtime } = node;
  const version = await runtime.version({ version: '0.1.0' });
  assert.deepEqual([version.runtimeName, version.runtimeVersion, version.runtimeApiVersion], ['podvm', '1.2.3', 'v1']);
  const quiet = await runtime.status();
  assert.deepEqual(
    quiet.status?.conditions.map(({ type, status: isMet }) => [type, isMet]),
    [
      ['RuntimeReady', true],
      ['NetworkReady', true],
    ],
  );
  assert.deepEqual(
    quiet.runtimeHandlers.map(({ name }) => name),
    ['', 'podvm', 'podvm-own-boot'],
  );
  for (const { features } of quiet.runtimeHandlers) {
    assert.deepEqual([features?.recursiveReadOnlyMounts, features?.userNamespaces], [true, true]);
  }
  assert.deepEqual(quiet.info, {});
  const verbose = await runtime.status({ verbose: true });
  assert.deepEqual(JSON.parse(verbose.info['config'] ?? ''), { root: node.directory });
  assert.equal((await runtime.runtimeConfig()).linux?.cgroupDriver, CgroupDriver.CGROUPFS);
  await runtime.updateRuntimeConfig({ runtimeConfig: { networkConfig: { podCidr: '10.0.0.0/24' } } });
});

test('a network that lacks its configuration is told as it is, with the reason, until it is there', async () => {
  await using node = await openScriptedNode();
  const conditionOf = async () =>
    (await node.runtime.status()).status?.conditions.find(({ type }) => type === 'NetworkReady');
  node.setNetworkReadiness({ isReady: false, message: 'Cannot connect: no *.conflist', fix: 'Install a network.' });
  const { status: isMet, reason, message } = (await conditionOf()) ?? {};
  assert.deepEqual([isMet, reason], [false, 'NetworkPluginNotReady']);
  assert.equal(message, 'Cannot connect: no *.conflist. Install a network.');
  node.setNetworkReadiness({ isReady: true, name: 'cluster' });
  assert.equal((await conditionOf())?.status, true);
});

test('what PodVM has not is unimplemented, in a sentence', async () => {
  await using node = await openScriptedNode();
  const { runtime } = node;
  for (const verb of [runtime.checkpointContainer, runtime.checkpointPod, runtime.restorePod])
    await assert.rejects(verb(), is(status.UNIMPLEMENTED, /Cannot checkpoint or restore/));
});

test('figures of containers and pods come from their guest, in lists, streams and one by one', async () => {
  await using node = await openScriptedNode();
  const { runtime, parts } = node;
  const { podSandboxId, containerId } = await node.running();
  const other = { ...containerConfig, metadata: { name: 'other' } };
  await runtime.createContainer({ podSandboxId, config: other }); // does not run: is in no list
  parts.guest.answers.set('stats', () => ({
    agentRssKiB: 1,
    agentFds: 2,
    agentHeapBytes: 3,
    pod: { ...figures, memoryLimitBytes: 65_536 },
    containers: [{ id: containerId, ...figures, layer: { bytes: 12_288, inodes: 5 } }],
  }));
  const one = (await runtime.containerStats({ containerId })).stats;
  const { stats: listed } = await runtime.listContainerStats({ filter: { podSandboxId } });
  const streamed: typeof listed = [];
  for await (const { containerStats } of runtime.streamContainerStats()) streamed.push(...containerStats);
  for (const stats of [one, listed[0], streamed[0]]) {
    assert.equal(stats?.attributes?.id, containerId);
    assert.equal(stats.attributes.metadata?.name, 'main');
    assert.deepEqual(stats.attributes.labels, containerConfig.labels);
    assert.equal(stats.cpu?.usageCoreNanoSeconds?.value, 1_500_000n);
    assert.equal(stats.memory?.workingSetBytes?.value, 3000n);
    assert.equal(stats.memory.usageBytes?.value, 4096n);
    assert.deepEqual([stats.writableLayer?.usedBytes?.value, stats.writableLayer?.inodesUsed?.value], [12_288n, 5n]);
    assert.match(stats.writableLayer?.fsId?.mountpoint ?? '', /images$/);
    assert.ok((stats.cpu.timestamp ?? 0n) > 1_700_000_000_000_000_000n);
  }
  assert.deepEqual([listed.length, streamed.length], [1, 1]);
  const none = await runtime.listContainerStats({ filter: { labelSelector: { part: 'other' } } });
  assert.deepEqual(none.stats, []);

  const pod = (await runtime.podSandboxStats({ podSandboxId })).stats;
  const { stats: pods } = await runtime.listPodSandboxStats({ filter: { labelSelector: podConfig.labels } });
  const streamedPods: typeof pods = [];
  for await (const { podSandboxStats } of runtime.streamPodSandboxStats()) streamedPods.push(...podSandboxStats);
  for (const stats of [pod, pods[0], streamedPods[0]]) {
    assert.equal(stats?.attributes?.id, podSandboxId);
    assert.equal(stats.linux?.memory?.availableBytes?.value, 62_536n);
    assert.equal(stats.linux.process?.processCount?.value, 3n);
    assert.equal(stats.linux.containers[0]?.attributes?.id, containerId);
  }
});

test('metrics have the names of cAdvisor, and as many label values as their descriptors have keys', async () => {
  await using node = await openScriptedNode();
  const { runtime, parts } = node;
  const linux = { resources: { cpuShares: 512n, cpuPeriod: 100_000n, cpuQuota: 50_000n } };
  const { podSandboxId, containerId } = await node.running(podConfig, { ...containerConfig, linux });
  parts.guest.answers.set('stats', () => ({
    agentRssKiB: 1,
    agentFds: 2,
    agentHeapBytes: 3,
    pod: { ...figures, cpuUsec: 3_500_000 },
    containers: [{ id: containerId, ...figures, oomKills: 2 }],
  }));
  const { descriptors } = await runtime.listMetricDescriptors();
  const keysOf = new Map(descriptors.map(({ name, labelKeys }) => [name, labelKeys]));
  const { podMetrics } = await runtime.listPodSandboxMetrics();
  const streamed: typeof podMetrics = [];
  for await (const { podSandboxMetrics } of runtime.streamPodSandboxMetrics()) streamed.push(...podSandboxMetrics);
  for (const pod of [podMetrics[0], streamed[0]]) {
    assert.equal(pod?.podSandboxId, podSandboxId);
    const [container] = pod.containerMetrics;
    assert.equal(container?.containerId, containerId);
    for (const { name, labelValues } of [...pod.metrics, ...container.metrics]) {
      assert.equal(labelValues.length, keysOf.get(name)?.length, name);
    }
    const value = (name: string, of = container.metrics) => of.find((each) => each.name === name)?.value?.value;
    assert.equal(value('container_cpu_usage_seconds_total', pod.metrics), 3n);
    assert.equal(value('container_memory_working_set_bytes'), 3000n);
    assert.equal(value('container_oom_events_total'), 2n);
    assert.equal(value('container_spec_cpu_shares'), 512n);
    assert.equal(value('container_spec_cpu_quota'), 50_000n);
    assert.deepEqual(container.metrics[0]?.labelValues, [
      'main',
      containerId,
      'busybox',
      containerId,
      'default',
      'web',
    ]);
  }
});

test('a pod whose guest does not answer is left out of lists, and told when it is asked for', async () => {
  await using node = await openScriptedNode();
  const { runtime, parts } = node;
  const { podSandboxId, containerId } = await node.running();
  parts.guest.answers.set('stats', () => {
    throw new Error('wedged');
  });
  const { stats } = await runtime.listContainerStats();
  assert.equal(stats[0]?.attributes?.id, containerId);
  assert.equal(stats[0].cpu, undefined);
  assert.deepEqual((await runtime.listPodSandboxStats()).stats, []);
  await assert.rejects(runtime.podSandboxStats({ podSandboxId }), is(status.INTERNAL, /wedged/));
});

test('getContainerEvents() tells each step of pods and containers, with their states then', async () => {
  await using node = await openScriptedNode();
  const { runtime } = node;
  const stop = new AbortController();
  const seen: [string, ContainerEventType, number][] = [];
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  const listening = (async () => {
    for await (const event of runtime.getContainerEvents({}, { signal: stop.signal })) {
      seen.push([event.containerId, event.containerEventType, event.containersStatuses.length]);
      if (
        event.containerEventType === ContainerEventType.CONTAINER_DELETED_EVENT &&
        event.containerId.startsWith('sb-')
      )
        resolve();
    }
  })().catch(() => {});
  await runtime.version(); // the listener's call is there before this one is answered
  const { podSandboxId, containerId } = await node.running();
  node.exit(containerId, 0);
  await runtime.stopPodSandbox({ podSandboxId });
  await runtime.removePodSandbox({ podSandboxId });
  await gone;
  stop.abort();
  await listening;
  const types = (id: string) => seen.filter(([each]) => each === id).map(([, type]) => type);
  assert.deepEqual(types(podSandboxId), [0, 1, 2, 3]);
  assert.deepEqual(types(containerId), [0, 1, 2, 3]);
  assert.deepEqual(seen[0], [podSandboxId, ContainerEventType.CONTAINER_CREATED_EVENT, 0]);
});
