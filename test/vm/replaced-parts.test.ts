import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ContainerState, PodSandboxState } from '#cri/schema/api_pb.ts';
import { isThere } from '#host/files.ts';
import { sweepFileServers } from '#storage/file-server.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const image = { image: 'localhost/podvm/base:latest' };

/** Asks again until it is there, and returns how long that took, in `ms`. */
async function until(what: string, deadlineMs: number, look: () => Promise<boolean>): Promise<number> {
  const startMs = performance.now();
  for (;;) {
    if (await look()) return performance.now() - startMs;
    assert.ok(performance.now() - startMs < deadlineMs, `not within ${deadlineMs} ms: ${what}`);
    await delay(50);
  }
}

/** Parts of running pods that end or are removed by others. */
describe('a part of a pod that is lost', { skip, timeout: 600_000 }, () => {
  let node: CriNode;

  before(async () => {
    node = await openCriNode();
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
  });

  const runPod = async (name: string, attempt = 0) => {
    const metadata = { name, namespace: 'default', uid: `uid-of-${name}`, attempt };
    const config = { metadata, logDirectory: join(node.cli.root, 'pod-logs', name), labels: { pod: name } };
    const { podSandboxId } = await node.runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    return { podSandboxId, config };
  };
  type Pod = Awaited<ReturnType<typeof runPod>>;
  const runContainer = async ({ podSandboxId, config }: Pod, name: string, script: string, more: object = {}) => {
    const { containerId } = await node.runtime.createContainer({
      podSandboxId,
      sandboxConfig: config,
      config: { metadata: { name }, image, command: ['sh', '-c', script], logPath: `${name}.log`, ...more },
    });
    await node.runtime.startContainer({ containerId });
    return containerId;
  };
  const stateOf = async ({ podSandboxId }: Pod) =>
    (await node.runtime.podSandboxStatus({ podSandboxId })).status?.state ?? assert.fail('no such pod');
  const infoOf = async ({ podSandboxId }: Pod) => {
    const { info } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    return JSON.parse(info['info'] ?? '') as { readonly pid: number };
  };
  const exec = async (containerId: string, script: string) => {
    const { stdout, exitCode } = await node.runtime.execSync({ containerId, cmd: ['sh', '-c', script], timeout: 60n });
    return { text: Buffer.from(stdout).toString().trim(), exitCode };
  };

  it('a machine that is stopped is found within 30 s, its containers end, and the next attempt runs', async (t) => {
    const pod = await runPod('stopped');
    const main = await runContainer(pod, 'main', 'trap "" TERM; while :; do sleep 1; done');
    const neighbour = await runPod('neighbour');
    const lives = await runContainer(neighbour, 'main', 'exec sleep 1000');
    const { pid } = await infoOf(pod);
    process.kill(pid, 'SIGSTOP');
    const stopping = node.runtime.stopContainer({ containerId: main, timeout: 2n });
    const foundMs = await until('the pod is not ready', 31_000, async () => {
      return (await stateOf(pod)) === PodSandboxState.SANDBOX_NOTREADY;
    });
    await stopping;
    t.diagnostic(`found after ${Math.round(foundMs)} ms`);
    const { status } = await node.runtime.containerStatus({ containerId: main });
    assert.equal(status?.state, ContainerState.CONTAINER_EXITED);
    assert.equal(status.exitCode, 137);
    assert.match(status.message, /the machine has not answered for \d+ s: its process is stopped/);
    const next = await runPod('stopped', 1);
    await runContainer(next, 'main', 'exec sleep 1000');
    assert.equal((await exec(lives, 'echo here')).text, 'here');
    for (const { podSandboxId } of [pod, next, neighbour]) {
      await node.runtime.stopPodSandbox({ podSandboxId });
      await node.runtime.removePodSandbox({ podSandboxId });
    }
  });

  it('a guest that hangs is found, as soon as its machine has had the time to answer', async (t) => {
    const pod = await runPod('hung');
    const main = await runContainer(pod, 'main', 'exec sleep 1000', {
      linux: { securityContext: { privileged: true } },
    });
    const { pid } = await infoOf(pod);
    // A panic without a restart: one processor of the guest runs in circles, the others stand still.
    void exec(main, 'echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger').catch(() => undefined);
    const foundMs = await until('the pod is not ready', 125_000, async () => {
      return (await stateOf(pod)) === PodSandboxState.SANDBOX_NOTREADY;
    });
    t.diagnostic(`found after ${Math.round(foundMs)} ms`);
    await until('its VMM is gone', 5_000, async () => !(await isThere(`/proc/${pid}`)));
    const { status } = await node.runtime.containerStatus({ containerId: main });
    assert.match(
      status?.message ?? '',
      /the machine has not answered for \d+ s: its guest is busy and does not answer/,
    );
    await node.runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
  });

  it('a file server that is killed: containers that mount its volume end, and their next attempts have it', async () => {
    const pod = await runPod('shares');
    const [shared, other] = ['shared', 'other'].map((name) => join(node.cli.root, name)) as [string, string]; // SAFE: two names
    for (const directory of [shared, other]) await mkdir(directory);
    const mounts = [{ hostPath: shared, containerPath: '/shared' }];
    const count = 'i=0; while :; do i=$((i+1)); echo $i > /shared/count; sleep 0.1; done';
    const main = await runContainer(pod, 'main', count, { mounts });
    assert.equal((await sweepFileServers(pod.podSandboxId)).length > 0, true);
    const elsewhere = [{ hostPath: other, containerPath: '/other' }];
    const bystander = await runContainer(pod, 'bystander', 'exec sleep 1000', { mounts: elsewhere });
    await until('the container has ended', 20_000, async () => {
      const { status } = await node.runtime.containerStatus({ containerId: main });
      return status?.state === ContainerState.CONTAINER_EXITED;
    });
    const { status } = await node.runtime.containerStatus({ containerId: main });
    assert.equal(status?.message, `the file server of ${shared} has ended`);
    assert.match(node.log(), /a file server has ended before its volume .*count=1/);
    await rm(join(shared, 'count'), { force: true });
    const again = await runContainer(pod, 'main', count, { mounts, metadata: { name: 'main', attempt: 1 } });
    await until('the next attempt counts', 20_000, async () => await isThere(join(shared, 'count')));
    assert.equal((await exec(again, 'mkdir /shared/made && ls /shared | head -1')).exitCode, 0);
    await writeFile(join(shared, 'of-host'), 'seen');
    assert.equal((await exec(again, 'cat /shared/of-host')).text, 'seen');
    assert.equal((await exec(bystander, 'echo here > /other/file && cat /other/file')).text, 'here');
    await node.runtime.removeContainer({ containerId: main });
    assert.equal((await exec(again, 'cat /shared/of-host')).text, 'seen');
    await node.runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
  });
});
