import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { is } from '#cri/testing/grpc-client.ts';
import { isThere } from '#host/file/files.ts';
import { poll } from '#host/wait.ts';
import { isVersion2, KubeletCgroups, memoryRoot, processesIn, roots } from '../kubelet-cgroups.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const files = isVersion2
  ? { memory: 'memory.max', usage: 'memory.current', cpu: 'cpu.max' }
  : { memory: 'memory.limit_in_bytes', usage: 'memory.usage_in_bytes', cpu: 'cpu.cfs_quota_us' };
const cpuRoot = isVersion2 ? '/sys/fs/cgroup' : '/sys/fs/cgroup/cpu';
const mebibyte = 1024 * 1024;

async function becomes(what: string, isTrue: () => Promise<boolean>): Promise<void> {
  const timing = { everyMs: 20, signal: AbortSignal.timeout(120_000) };
  assert.ok(await poll(async () => (await isTrue()) || undefined, timing), what);
}

/** Empty if it is gone. */
const childrenOf = async (directory: string) =>
  (await readdir(directory, { withFileTypes: true }).catch(() => []))
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
const pidsOf = async (directory: string) =>
  (await readFile(join(directory, 'cgroup.procs'), 'latin1').catch(() => '')).split('\n').filter(Boolean).map(Number);
/** The process's cgroup of the processor, with cgroups version 1; empty if it is gone. */
const cpuCgroupOf = async (pid: number) =>
  /^\d+:cpu(?:,cpuacct)?:\/(.*)$/m.exec(await readFile(`/proc/${pid}/cgroup`, 'latin1').catch(() => ''))?.[1] ?? '';

describe('the cgroup that a kubelet makes for a pod', { skip }, () => {
  let node: CriNode;
  let cgroups: KubeletCgroups;

  before(async () => {
    cgroups = new KubeletCgroups();
    node = await openCriNode({ pool: '1' });
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await cgroups[Symbol.asyncDispose]();
  });

  const configOf = (name: string, cgroupParent: string) => ({
    metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 },
    logDirectory: join(node.cli.root, 'pod-logs', name),
    linux: { cgroupParent, resources: { memoryLimitInBytes: 32n << 20n, cpuQuota: 20_000n, cpuPeriod: 100_000n } },
  });
  const runPod = async (name: string, cgroupParent: string, handler = '') => {
    const config = configOf(name, cgroupParent);
    const { podSandboxId } = await node.runtime.runPodSandbox({ config, runtimeHandler: handler });
    node.ids.push(podSandboxId);
    return { podSandboxId, config };
  };
  const numberIn = async (...path: string[]) => Number(await readFile(join(...path), 'latin1'));
  const isIn = async (path: string) =>
    (await Promise.all(roots.map((root) => isThere(join(root, path))))).includes(true);
  /** Waits until no cgroup of podvm is left, after a start. */
  const settled = (id: string) => becomes('the start is over', async () => !(await isIn(`podvm/${id}`)));

  for (const [handler, from] of [
    ['podvm-own-boot', 'that boots'],
    ['', 'of the pool'],
  ] as const) {
    it(`has the VMM and the file servers of a machine ${from}, across daemons, and is empty after the pod`, async () => {
      const parent = `podvm-test-kubepods/burstable/pod-${handler}`;
      await cgroups.make(parent);
      // As for one container of 32Mi and 200m.
      await writeFile(join(memoryRoot, parent, files.memory), String(32 * mebibyte));
      await writeFile(join(cpuRoot, parent, files.cpu), isVersion2 ? '20000 100000' : '20000');
      if (handler === '') await becomes('the pool is full', async () => /spare machine made/.test(node.log()));
      const { podSandboxId, config } = await runPod(`pod-${handler}`, `/${parent}`, handler);
      const { containerId } = await node.runtime.createContainer({
        podSandboxId,
        sandboxConfig: config,
        config: {
          metadata: { name: 'main', attempt: 0 },
          image: { image: 'localhost/podvm/base:latest' },
          command: ['sleep', '1000'],
          mounts: [{ containerPath: '/root', hostPath: node.cli.root }],
        },
      });
      await node.runtime.startContainer({ containerId });
      const mine = `${parent}/${podSandboxId}`;
      const lines = await processesIn(mine);
      assert.ok(
        lines.some((line) => line.includes('qemu')),
        lines.join(),
      );
      assert.ok(
        lines.some((line) => line.includes('/shares/')),
        lines.join(),
      );
      await settled(podSandboxId);
      const limit = await numberIn(memoryRoot, parent, files.memory);
      assert.ok(limit >= (await numberIn(memoryRoot, mine, files.memory)), 'the pod has room for its machine');
      const [quota] = (await readFile(join(cpuRoot, parent, files.cpu), 'latin1')).split(' ');
      assert.equal(Number(quota), 120_000, 'and its VMM a core more than its containers');
      assert.ok((await numberIn(memoryRoot, parent, files.usage)) > mebibyte, 'what the machine uses is counted there');

      await node.end('SIGKILL');
      await node.start();
      const { exitCode } = await node.runtime.execSync({ containerId, cmd: ['ls', '/root'] });
      assert.equal(exitCode, 0);
      assert.equal((await processesIn(mine)).length, lines.length);
      await node.runtime.removePodSandbox({ podSandboxId });
      assert.equal(await isIn(mine), false);
    });
  }

  it(
    'has the weight of the VMM, but during starts',
    { skip: isVersion2 ? 'cgroups version 2 has one hierarchy' : false },
    async () => {
      const parent = 'podvm-test-kubepods/besteffort/pod-light';
      await cgroups.make(parent);
      await writeFile(join(cpuRoot, parent, 'cpu.shares'), '2');
      const starting = runPod('light', `/${parent}`, 'podvm-own-boot');
      const hasStarted = starting.then(() => true);
      const seen = new Set<string>();
      do {
        for (const id of await childrenOf(join(memoryRoot, parent)))
          for (const pid of await pidsOf(join(memoryRoot, parent, id))) seen.add(await cpuCgroupOf(pid));
      } while (!(await Promise.race([hasStarted, delay(20, false)])));
      const { podSandboxId, config } = await starting;
      const [own, ofPodvm] = [`${parent}/${podSandboxId}`, `podvm/${podSandboxId}`];
      assert.ok(seen.has(ofPodvm), [...seen].join());
      await settled(podSandboxId);
      const { info } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
      const { pid } = JSON.parse(info['info'] ?? '') as { pid: number };
      assert.equal(await cpuCgroupOf(pid), own);

      let limits: readonly number[] = [];
      const raised = becomes('it has the weight', async () => {
        if ((await cpuCgroupOf(pid)) !== ofPodvm) return false;
        const names = ['cpu.shares', 'cpu.cfs_quota_us']; // read now: it has them for a moment
        limits = await Promise.all(names.map((name) => numberIn(cpuRoot, ofPodvm, name))).catch(() => []);
        return limits.length > 0;
      });
      const { containerId } = await node.runtime.createContainer({
        podSandboxId,
        sandboxConfig: config,
        config: {
          metadata: { name: 'main', attempt: 0 },
          image: { image: 'localhost/podvm/base:latest' },
          command: ['sleep', '1000'],
        },
      });
      await raised;
      assert.deepEqual(limits, [102_400, await numberIn(cpuRoot, own, 'cpu.cfs_quota_us')]);
      await node.runtime.startContainer({ containerId });
      await settled(podSandboxId);
      assert.equal(await cpuCgroupOf(pid), own);

      await node.end('SIGKILL');
      // As if it had been killed during a start.
      await mkdir(join(cpuRoot, ofPodvm));
      await writeFile(join(cpuRoot, ofPodvm, 'cgroup.procs'), String(pid));
      await node.start();
      const { exitCode } = await node.runtime.execSync({ containerId, cmd: ['true'] });
      assert.equal(exitCode, 0);
      assert.equal(await cpuCgroupOf(pid), own);
      assert.equal(await isIn(ofPodvm), false);
      await node.runtime.removePodSandbox({ podSandboxId });
      assert.equal(await isIn(own), false);
    },
  );

  it('is empty after a daemon and a machine were killed', async () => {
    const parent = 'podvm-test-kubepods.slice/podvm-test-kubepods-pod2.slice';
    await cgroups.make(parent);
    const { podSandboxId } = await runPod('killed', `/${parent}`, 'podvm-own-boot');
    const { info } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    const { pid } = JSON.parse(info['info'] ?? '') as { pid: number };
    await node.end('SIGKILL');
    process.kill(pid, 'SIGKILL');
    await node.start();
    await node.runtime.removePodSandbox({ podSandboxId });
    assert.equal(await isIn(`${parent}/${podSandboxId}`), false);
  });

  it('must exist: a pod without it is refused, and other pods are limited as before', async () => {
    await assert.rejects(
      runPod('nowhere', '/podvm-test-kubepods/none'),
      is(status.FAILED_PRECONDITION, /there is no .*podvm-test-kubepods\/none[^]*leave out cgroup_parent/),
    );
    const { podSandboxId } = await runPod('plain', '');
    assert.ok(await isIn(`podvm/${podSandboxId}`));
    await node.runtime.removePodSandbox({ podSandboxId });
    assert.equal(await isIn(`podvm/${podSandboxId}`), false);
  });
});
