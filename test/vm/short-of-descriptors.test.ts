import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { PodSandboxState } from '#cri/schema/api_pb.ts';
import { run } from '#host/process/run.ts';
import { tracesOf } from '../leaks.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const deadlineMs = 60_000;
const refused = {
  code: 8, // RESOURCE_EXHAUSTED
  details:
    /^Cannot make a sandbox: podvm is short of file descriptors\. Raise the limit of podvm .* or stop some pods\.$/,
};

describe('a daemon that is short of file descriptors', { skip, timeout: 600_000 }, () => {
  let node: CriNode;

  before(async () => {
    node = await openCriNode();
  });
  after(async () => {
    await limitTo(await hardLimit());
    await node[Symbol.asyncDispose]();
  });

  const limitTo = (count: number) => run('prlimit', ['--pid', String(node.pid), `--nofile=${count}:`]);
  const hardLimit = async () => {
    const { stdout } = await run('prlimit', [
      '--pid',
      String(node.pid),
      '--nofile',
      '--noheadings',
      '--output',
      'HARD',
    ]);
    return Number(stdout);
  };
  const descriptorsOf = async () => (await readdir(`/proc/${node.pid}/fd`)).map(Number);
  const says = async (pattern: RegExp) => {
    for (const deadline = Date.now() + deadlineMs; !pattern.test(node.log()); await delay(20)) {
      assert.ok(Date.now() < deadline, `no ${String(pattern)} in:\n${node.log()}`);
    }
  };
  const runPod = async (name: string) => {
    const config = {
      metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 },
      logDirectory: `${node.cli.root}/pod-logs/${name}`,
    };
    const { podSandboxId } = await node.runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    const { containerId } = await node.runtime.createContainer({
      podSandboxId,
      sandboxConfig: config,
      config: {
        metadata: { name: 'it', attempt: 0 },
        image: { image: 'localhost/podvm/base:latest' },
        command: ['sh', '-c', 'echo up; exec sleep 1000000'],
        logPath: 'it.log',
      },
    });
    await node.runtime.startContainer({ containerId });
    return { podSandboxId, containerId };
  };
  const answers = async ({ containerId }: { readonly containerId: string }) => {
    const { stdout } = await node.runtime.execSync({ containerId, cmd: ['echo', 'here'], timeout: 60n });
    assert.equal(Buffer.from(stdout).toString(), 'here\n');
  };
  const isGone = async (id: string) => {
    const { items } = await node.runtime.listPodSandbox({ filter: { id } });
    assert.deepEqual(items, []);
    assert.deepEqual(await tracesOf({ ids: [id] }), []);
  };
  const refusesPods = async () => {
    await assert.rejects(runPod('refused'), (error: { code: number; details: string }) => {
      assert.equal(error.code, refused.code);
      assert.match(error.details, refused.details);
      return true;
    });
  };

  it('continues: pods are stopped and removed, new ones are refused, and everything works again afterwards', async () => {
    const [first, second, third] = [await runPod('first'), await runPod('second'), await runPod('third')];
    const taken = new Set(await descriptorsOf());
    const lowestFree = Array.from({ length: taken.size + 1 }, (_, at) => at).find((at) => !taken.has(at)) ?? 0;
    await limitTo(lowestFree);
    await says(/ warn short of file descriptors: new pods are refused open=/);

    await refusesPods();
    await answers(second);
    assert.equal((await node.cli.type(['ps'])).code, 0); // over a new connection
    await node.runtime.stopContainer({ containerId: first.containerId, timeout: 1n });
    await node.runtime.removeContainer({ containerId: first.containerId });
    for (const { podSandboxId } of [first, third]) {
      await node.runtime.stopPodSandbox({ podSandboxId });
      await node.runtime.removePodSandbox({ podSandboxId });
      await isGone(podSandboxId);
    }
    await refusesPods();

    await limitTo(await hardLimit());
    await says(/ info there are enough file descriptors again open=/);
    const { status } = await node.runtime.podSandboxStatus({ podSandboxId: second.podSandboxId });
    assert.equal(status?.state, PodSandboxState.SANDBOX_READY);
    await answers(second);
    await answers(await runPod('afterwards'));
    assert.doesNotMatch(node.log(), /bug in podvm|not completely (cleaned up|undone)/);
  });

  it('keeps the reserve from clients that hold connections, and from pods', async () => {
    const pod = await runPod('held');
    const { url } = await node.runtime.exec({ containerId: pod.containerId, cmd: ['true'], stdout: true });
    await limitTo((await descriptorsOf()).length + 100);
    const sockets: Socket[] = [];
    for (let count = 0; count < 200; count += 1) {
      const socket = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => undefined);
      sockets.push(socket);
      await once(socket, 'connect').catch(() => undefined);
    }
    await says(/ warn short of file descriptors(?:(?! info there are enough)[^])*$/);
    await refusesPods();
    await node.runtime.stopPodSandbox({ podSandboxId: pod.podSandboxId });
    await node.runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
    await isGone(pod.podSandboxId);
    for (const socket of sockets) socket.destroy();
    await limitTo(await hardLimit());
    await says(/ info there are enough file descriptors again[^\n]*\n(?:(?! warn short of)[^])*$/);
    await answers(await runPod('free-again'));
  });

  it('refuses pods before the table is full, and accepts one again when another has ended', async () => {
    await limitTo((await descriptorsOf()).length + 75);
    const pods: Awaited<ReturnType<typeof runPod>>[] = [];
    const refusals: unknown[] = [];
    for (let at = 0; at < 12 && refusals.length === 0; at += 1) {
      await runPod(`many-${at}`).then(
        (pod) => pods.push(pod),
        (error: unknown) => refusals.push(error),
      );
    }
    assert.match(String(refusals[0]), /podvm is short of file descriptors/);
    assert.ok(pods.length > 0);
    for (const pod of pods) await answers(pod);
    const [gone] = pods;
    await node.runtime.removePodSandbox({ podSandboxId: gone?.podSandboxId ?? '' });
    await answers(await runPod('instead'));
    await limitTo(await hardLimit());
  });
});
