import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { PodvmError } from '#base/errors.ts';
import { podFigures } from '#metrics/testing/figures.ts';
import { is } from '../testing/grpc-client.ts';
import { CgroupDriver, ContainerEventType } from '../schema/api_pb.ts';
import { containerConfig, openFakeNode, podConfig } from '../testing/fake-node.ts';

const figures = {
  memoryBytes: 4096,
  memoryPeakBytes: 8192,
  rssBytes: 2000,
  inactiveFileBytes: 1096,
  pageFaults: 70,
  majorPageFaults: 7,
  swapBytes: 0,
  oomKills: 0,
  cpuUsec: 1500,
  pids: 3,
};
const counters = { rxPackets: 2, rxErrors: 3, rxDropped: 4, txPackets: 6, txErrors: 7, txDropped: 8 };
const interfaces = [
  { name: 'eth0', rxBytes: 1, txBytes: 5, ...counters },
  { name: 'net1', rxBytes: 10, txBytes: 50, ...counters },
];
const device = {
  major: 8,
  minor: 0,
  name: 'sda',
  readBytes: 1024,
  reads: 1,
  writtenBytes: 2048,
  writes: 2,
  discardedBytes: 0,
};
/** Metrics of a pod; a container's have more fields, and no interfaces. */
const podMetrics = {
  ...podFigures,
  ...figures,
  cpuUserUsec: 2_000_000,
  cpuSystemUsec: 1_500_000,
  interfaces,
  ulimits: [],
};
const states = { running: 1, sleeping: 2, stopped: 0, uninterruptible: 0 };
const containerMetrics = {
  ...podMetrics,
  devices: [device],
  interfaces: [],
  processes: { processes: 3, states, descriptors: 12, sockets: 2 },
  ulimits: [{ name: 'max_open_files', soft: 1024 }],
  layer: { bytes: 12_288, inodes: 5, device: 'sda', limitBytes: 1 << 20, totalInodes: 100, freeInodes: 95 },
};

test('the node reports its version, its readiness, and only supported features', async () => {
  await using node = await openFakeNode();
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
    ['', 'podvm', 'podvm-namespace', 'podvm-own-boot'],
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

test('a network without configuration is reported as not ready, with the reason, until it is configured', async () => {
  await using node = await openFakeNode();
  const conditionOf = async () =>
    (await node.runtime.status()).status?.conditions.find(({ type }) => type === 'NetworkReady');
  node.setNetworkReadiness({ isReady: false, message: 'Cannot connect: no *.conflist', fix: 'Install a network.' });
  const { status: isMet, reason, message } = (await conditionOf()) ?? {};
  assert.deepEqual([isMet, reason], [false, 'NetworkPluginNotReady']);
  assert.equal(message, 'Cannot connect: no *.conflist. Install a network.');
  node.setNetworkReadiness({ isReady: true, name: 'cluster' });
  assert.equal((await conditionOf())?.status, true);
});

test('unsupported verbs are unimplemented, with a message', async () => {
  await using node = await openFakeNode();
  const { runtime } = node;
  for (const verb of [runtime.checkpointContainer, runtime.checkpointPod, runtime.restorePod])
    await assert.rejects(verb(), is(status.UNIMPLEMENTED, /Cannot checkpoint or restore/));
});

test('statistics of containers and pods come from their guest, in lists, streams and single requests', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId, containerId } = await node.running();
  const other = { ...containerConfig, metadata: { name: 'other' } };
  await runtime.createContainer({ podSandboxId, config: other }); // not running: in no list
  parts.guest.answers.set('stats', () => ({
    agentRssKiB: 1,
    agentFds: 2,
    agentHeapBytes: 3,
    pod: { ...figures, memoryLimitBytes: 65_536 },
    containers: [{ id: containerId, ...figures, layer: { bytes: 12_288, inodes: 5 } }],
    volumes: [],
    interfaces,
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
    assert.equal(stats.memory.rssBytes?.value, 2000n);
    assert.deepEqual([stats.memory.pageFaults?.value, stats.memory.majorPageFaults?.value], [70n, 7n]);
    assert.deepEqual([stats.swap?.swapUsageBytes?.value, stats.swap?.swapAvailableBytes?.value], [0n, 0n]);
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
    const { defaultInterface, interfaces: others = [] } = stats.linux.network ?? {};
    for (const [found, given] of [
      [defaultInterface, interfaces[0]],
      [others[0], interfaces[1]],
    ] as const) {
      assert.equal(found?.name, given?.name);
      const values = [found?.rxBytes, found?.txBytes, found?.rxErrors, found?.txErrors].map((each) => each?.value);
      assert.deepEqual(values, [BigInt(given?.rxBytes ?? -1), BigInt(given?.txBytes ?? -1), 3n, 7n]);
    }
    assert.equal(others.length, 1);
    assert.equal(stats.linux.containers[0]?.attributes?.id, containerId);
  }
});

test('metrics have cAdvisor’s names, and a label value for each key of their descriptors', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const linux = { resources: { cpuShares: 512n, cpuPeriod: 100_000n, cpuQuota: 50_000n } };
  const { podSandboxId, containerId } = await node.running(podConfig, { ...containerConfig, linux });
  parts.guest.answers.set('metrics', ({ containerId: of }) =>
    of === containerId ? { ...containerMetrics, oomKills: 2 } : { ...podMetrics, cpuUsec: 3_500_000 },
  );
  const { descriptors } = await runtime.listMetricDescriptors();
  const keysOf = new Map(descriptors.map(({ name, labelKeys }) => [name, labelKeys]));
  const { podMetrics: listed } = await runtime.listPodSandboxMetrics();
  const streamed: typeof listed = [];
  for await (const { podSandboxMetrics } of runtime.streamPodSandboxMetrics()) streamed.push(...podSandboxMetrics);
  for (const pod of [listed[0], streamed[0]]) {
    assert.equal(pod?.podSandboxId, podSandboxId);
    const [container] = pod.containerMetrics;
    assert.equal(container?.containerId, containerId);
    for (const { name, labelValues } of [...pod.metrics, ...container.metrics]) {
      assert.equal(labelValues.length, keysOf.get(name)?.length, name);
    }
    const own = (of: typeof pod.metrics) =>
      new Map(of.map((each) => [[each.name, ...each.labelValues.slice(6)].join(' '), each.value?.value]));
    const [ofPod, ofContainer] = [own(pod.metrics), own(container.metrics)];
    assert.deepEqual(
      [ofPod.size, ofContainer.size],
      [pod.metrics.length, container.metrics.length],
      'no duplicate series',
    );
    const has = (of: typeof ofPod, expected: Readonly<Record<string, bigint | undefined>>) =>
      assert.deepEqual(Object.fromEntries(Object.keys(expected).map((series) => [series, of.get(series)])), expected);
    has(ofPod, {
      container_cpu_usage_seconds_total: 3n,
      'container_network_receive_bytes_total eth0': 1n,
      'container_network_transmit_packets_dropped_total net1': 8n,
      'container_fs_read_seconds_total /dev/sda': 2n,
      'container_fs_io_current /dev/sda': 5n,
      container_processes: 3n,
      container_sockets: 2n,
      'container_tasks_state sleeping': 2n,
      container_pressure_io_waiting_seconds_total: 2n,
      container_pressure_io_stalled_seconds_total: 1n,
    });
    has(ofContainer, {
      container_cpu_user_seconds_total: 2n,
      container_cpu_cfs_throttled_seconds_total: 1n,
      container_memory_working_set_bytes: 3000n,
      container_memory_max_usage_bytes: 8192n,
      container_memory_rss: 2000n,
      container_memory_failcnt: 5n,
      'container_memory_failures_total pgfault container': 70n,
      'container_memory_failures_total pgmajfault hierarchy': 7n,
      container_oom_events_total: 2n,
      container_threads_max: 0n,
      'container_ulimits_soft max_open_files': 1024n,
      'container_fs_limit_bytes /dev/sda': 1n << 20n,
      'container_fs_inodes_free /dev/sda': 95n,
      'container_fs_sector_writes_total /dev/sda': 4n,
      'container_blkio_device_usage_total /dev/sda 8 0 Write': 2048n,
      container_spec_cpu_shares: 512n,
      container_spec_cpu_quota: 50_000n,
      'container_network_receive_bytes_total eth0': undefined,
      'container_fs_io_current /dev/sda': undefined,
    });
    const labels = ['main', containerId, 'busybox', containerId, 'default', 'web'];
    assert.deepEqual(container.metrics[0]?.labelValues, labels);
    assert.deepEqual(pod.metrics[0]?.labelValues, ['', podSandboxId, '', '', 'default', 'web']);
  }
});

test('metrics omit a container that is gone, and values of a pod that are unknown for one container', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId, containerId } = await node.running();
  const config = { ...containerConfig, metadata: { name: 'other', attempt: 0 } };
  const other = await runtime.createContainer({ podSandboxId, config });
  await runtime.startContainer({ containerId: other.containerId });
  const { processes: _, ...crowded } = containerMetrics;
  let isGone = false;
  parts.guest.answers.set('metrics', ({ containerId: of }) => {
    if (of === undefined) return podMetrics;
    if (of === containerId) return containerMetrics;
    if (isGone) throw new PodvmError('notFound', 'Cannot measure container: there is none');
    return crowded;
  });
  const processesOf = async () => {
    const { podMetrics: pods } = await runtime.listPodSandboxMetrics();
    return {
      ids: pods[0]?.containerMetrics.map((each) => each.containerId),
      count: pods[0]?.metrics.find(({ name }) => name === 'container_processes')?.value?.value,
    };
  };
  assert.deepEqual(await processesOf(), { ids: [containerId, other.containerId], count: undefined });
  isGone = true;
  assert.deepEqual(await processesOf(), { ids: [containerId], count: 3n });
});

test('verbose podSandboxStatus() has usage of guest and machine, and does not wait for a hanging guest', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId } = await node.running();
  const more = async () => {
    const { info } = await runtime.podSandboxStatus({ podSandboxId, verbose: true });
    return JSON.parse(info['info'] ?? '') as { accelerator: string; stats?: { memoryBytes: number } }; // SAFE: checked by the test
  };
  const answer = {
    agentRssKiB: 1,
    agentFds: 2,
    agentHeapBytes: 3,
    pod: figures,
    containers: [],
    volumes: [],
    interfaces,
  };
  parts.guest.answers.set('stats', () => answer);
  assert.equal((await more()).stats?.memoryBytes, 4096);
  parts.guest.answers.set('stats', () => {
    throw new Error('wedged');
  });
  const without = await more();
  assert.equal(without.stats, undefined);
  assert.ok(without.accelerator);
});

test('a pod whose guest does not answer is omitted from lists, and fails a single request', async () => {
  await using node = await openFakeNode();
  const { runtime, parts } = node;
  const { podSandboxId, containerId } = await node.running();
  parts.guest.answers.set('stats', () => {
    throw new Error('wedged');
  });
  const { stats } = await runtime.listContainerStats();
  assert.equal(stats[0]?.attributes?.id, containerId);
  assert.equal(stats[0].cpu, undefined);
  assert.deepEqual((await runtime.listPodSandboxStats()).stats, []);
  parts.guest.answers.set('metrics', () => {
    throw new Error('wedged');
  });
  assert.deepEqual((await runtime.listPodSandboxMetrics()).podMetrics, []);
  await assert.rejects(runtime.podSandboxStats({ podSandboxId }), is(status.INTERNAL, /wedged/));
});

test('getContainerEvents() reports each step of pods and containers, with their states at that time', async () => {
  await using node = await openFakeNode();
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
  await runtime.version(); // the listener's call arrives before this answer
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
