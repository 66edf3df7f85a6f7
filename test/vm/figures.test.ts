import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { type Metric } from '#cri/schema/api_pb.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();

const machineSchema = v.object({
  stats: v.object({
    agentRssKiB: v.number(),
    vmmPssKiB: v.number(),
    containers: v.array(v.object({ name: v.string(), rssBytes: v.number() })),
  }),
});

/** Least growth of each figure by the work below. */
const workOfContainer = {
  container_cpu_usage_seconds_total: 1n,
  container_memory_rss: 8n << 20n,
  'container_memory_failures_total pgfault container': 2000n,
  container_file_descriptors: 1n,
  container_sockets: 1n,
  container_processes: 1n,
  container_fs_usage_bytes: 8n << 20n,
  'container_fs_writes_bytes_total /dev/': 8n << 20n,
  'container_fs_reads_bytes_total /dev/': 8n << 20n,
  'container_fs_writes_total /dev/': 1n,
};
const workOfPod = {
  container_cpu_usage_seconds_total: 1n,
  'container_network_transmit_bytes_total eth0': 1000n,
  'container_network_transmit_packets_total eth0': 1n,
  'container_fs_writes_bytes_total /dev/': 8n << 20n,
  'podvm_network_refused_packets_total forged': 1n,
};

/** The sum of a metric's values, by its name and what its own labels begin with; a device not yet used has none. */
function valueOf(metrics: readonly Metric[], wanted: string): bigint {
  const [name = '', ...labels] = wanted.split(' ');
  return metrics
    .filter((each) => each.name === name && labels.every((label, at) => each.labelValues[6 + at]?.startsWith(label)))
    .reduce((sum, { value }) => sum + (value?.value ?? 0n), 0n);
}

describe('figures, as a kubelet asks for them', { skip }, () => {
  let node: CriNode;
  let runtime: CriNode['runtime'];

  before(async () => {
    node = await openCriNode();
    ({ runtime } = node);
  });
  after(async () => await node[Symbol.asyncDispose]());

  const start = async (name: string) => {
    const config = {
      metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 },
      logDirectory: join(node.cli.root, 'pod-logs', name),
    };
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    const container = {
      metadata: { name: 'main', attempt: 0 },
      image: { image: 'localhost/podvm/base:latest' },
      command: ['sleep', '1000000'],
      linux: {
        resources: { memoryLimitInBytes: 96n << 20n, cpuQuota: 200_000n, cpuPeriod: 100_000n, cpuShares: 512n },
      },
    };
    const { containerId } = await runtime.createContainer({ podSandboxId, config: container, sandboxConfig: config });
    await runtime.startContainer({ containerId });
    const run = async (script: string) => {
      const { exitCode, stderr } = await runtime.execSync({ containerId, cmd: ['sh', '-c', script] });
      assert.equal(exitCode, 0, Buffer.from(stderr).toString());
    };
    return { podSandboxId, containerId, run };
  };

  it('each counter follows the container’s activity, and every label matches its descriptor', async () => {
    const { podSandboxId, containerId, run } = await start('busy');
    const metricsNow = async () => {
      const { podMetrics } = await runtime.listPodSandboxMetrics();
      assert.deepEqual(
        podMetrics.map((each) => each.podSandboxId),
        [podSandboxId],
      );
      const [pod] = podMetrics;
      assert.equal(pod?.containerMetrics[0]?.containerId, containerId);
      return { pod: pod.metrics, container: pod.containerMetrics[0].metrics };
    };
    const first = await metricsNow();

    // Read past the page cache, where the file still is.
    await run('head -c 8388608 /dev/urandom > /written; sync; dd if=/written of=/dev/null bs=1M iflag=direct');
    await run('i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; ping -c 3 -s 1000 -W 1 10.255.255.1; true');
    await run('wget -q -T 2 -O - http://169.254.169.254/; true'); // dropped, since no pod may reach metadata by default
    const hold = `awk 'BEGIN { s = "x"; while (length(s) < 12000000) s = s s; system("sleep 1000000") }'`;
    for (const command of [hold, 'nc -l -p 4000']) await run(`(${command} < /dev/null > /dev/null 2>&1 &)`);
    const lag = (now: readonly Metric[], before: readonly Metric[], work: Readonly<Record<string, bigint>>) =>
      Object.entries(work).flatMap(([name, least]) => {
        const grown = valueOf(now, name) - valueOf(before, name);
        return grown >= least ? [] : [`${name}: ${grown} of ${least}`];
      });
    // The programs in the background take some time to get their memory and their socket; refused packets are counted each minute.
    const deadline = Date.now() + 180_000;
    let then = await metricsNow();
    const isThere = () =>
      valueOf(then.container, 'container_memory_rss') >
        valueOf(first.container, 'container_memory_rss') + (8n << 20n) &&
      valueOf(then.container, 'container_sockets') > 0n &&
      lag(then.pod, first.pod, workOfPod).length === 0;
    while (!isThere() && Date.now() < deadline) {
      await delay(200);
      then = await metricsNow();
    }

    assert.deepEqual(lag(then.container, first.container, workOfContainer), []);
    assert.deepEqual(lag(then.pod, first.pod, workOfPod), []);

    const { descriptors } = await runtime.listMetricDescriptors();
    const keysOf = new Map(descriptors.map(({ name, labelKeys }) => [name, labelKeys]));
    const all = [...then.pod, ...then.container];
    for (const { name, labelValues } of all) assert.equal(labelValues.length, keysOf.get(name)?.length, name);
    const series = all.map(({ name, labelValues }) => [name, ...labelValues].join(' '));
    assert.equal(new Set(series).size, series.length, 'no series comes twice');
    assert.deepEqual(
      descriptors.map(({ name }) => name).filter((name) => !all.some((each) => each.name === name)),
      [],
      'each metric that is offered is there',
    );

    const { stats: pod } = await runtime.podSandboxStats({ podSandboxId });
    const { stats: container } = await runtime.containerStats({ containerId });
    assert.equal(pod?.linux?.network?.defaultInterface?.name, 'eth0');
    assert.ok((pod.linux.network.defaultInterface.txBytes?.value ?? 0n) > 1000n);
    assert.deepEqual(pod.linux.network.interfaces, []);
    assert.ok((container?.memory?.rssBytes?.value ?? 0n) > 8n << 20n);
    assert.ok((container?.memory?.pageFaults?.value ?? 0n) > 2000n);
    assert.equal(container?.swap?.swapUsageBytes?.value, 0n);

    // After all of this the agent is still small.
    for (let asked = 0; asked < 50; asked += 1) await metricsNow();
    const { info } = await runtime.podSandboxStatus({ podSandboxId, verbose: true });
    const { stats } = v.parse(machineSchema, JSON.parse(info['info'] ?? ''));
    assert.ok(stats.agentRssKiB <= 4096, `${stats.agentRssKiB} KiB`);
    assert.ok(stats.vmmPssKiB > 10_000);
    assert.equal(stats.containers[0]?.name, 'main');
  });
});
