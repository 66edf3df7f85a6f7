import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ContainerState, PodSandboxState, Protocol } from '#cri/schema/api_pb.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { logLines } from '../log-lines.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { KubeletDirectory } from './kubelet-directory.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const image = { image: 'localhost/podvm/base:latest' };
const deadlineMs = 120_000;

/** Repeats a question until it has an answer. */
async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const found = await poll(look, { everyMs: 50, signal: AbortSignal.timeout(deadlineMs) });
  return found ?? assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

describe('a daemon takes over the pods of the one before', { skip }, () => {
  let node: CriNode;

  before(async () => {
    node = await openCriNode();
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
  });

  const podOf = (name: string) => ({
    metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 3 },
    logDirectory: join(node.cli.root, 'pod-logs', name),
    labels: { pod: name },
    annotations: { why: 'a test' },
  });
  const runPod = async (name: string, more: object = {}) => {
    const config = { ...podOf(name), ...more };
    const { podSandboxId } = await node.runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    return { podSandboxId, config };
  };
  const runContainer = async (
    { podSandboxId, config }: Awaited<ReturnType<typeof runPod>>,
    name: string,
    script: string,
    more: object = {},
  ) => {
    const { containerId } = await node.runtime.createContainer({
      podSandboxId,
      sandboxConfig: config,
      config: {
        metadata: { name, attempt: 2 },
        image,
        command: ['sh', '-c', script],
        logPath: `${name}.log`,
        ...more,
      },
    });
    await node.runtime.startContainer({ containerId });
    return containerId;
  };
  const statusOf = async (containerId: string) => (await node.runtime.containerStatus({ containerId })).status;
  const becomes = (containerId: string, state: ContainerState) =>
    until(`container in state ${state}`, async () => {
      const status = await statusOf(containerId);
      return status?.state === state ? status : undefined;
    });
  const exec = async (containerId: string, script: string) => {
    const { stdout, exitCode } = await node.runtime.execSync({ containerId, cmd: ['sh', '-c', script], timeout: 60n });
    return { text: Buffer.from(stdout).toString().trim(), exitCode };
  };

  it('after SIGKILL right after RunPodSandbox: the guest has its network when its first container starts', async () => {
    const pod = await runPod('fresh');
    await node.end('SIGKILL');
    await node.start();
    const { status } = await node.runtime.podSandboxStatus({ podSandboxId: pod.podSandboxId });
    assert.equal(status?.state, PodSandboxState.SANDBOX_READY, node.log());
    await runContainer(pod, 'echo', 'exec nc -ll -p 7 -e cat');
    const socket = await until('a connection', () => connectTo(status.network?.ip ?? '', 7));
    const said = receiver(socket);
    socket.write('here\n');
    await until('an echo', async () => (said().includes('here\n') ? true : undefined));
    socket.destroy();
    await node.runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
  });

  for (const how of ['SIGKILL', 'SIGTERM'] as const) {
    it(`after ${how}: processes, connections, addresses, exits and output continue`, async () => {
      const name = how.toLowerCase();
      const pod = await runPod(name, {
        portMappings: [{ hostPort: how === 'SIGKILL' ? 19_511 : 19_512, containerPort: 7, protocol: Protocol.TCP }],
      });
      const echo = await runContainer(pod, 'echo', 'exec nc -ll -p 7 -e cat');
      const last = 60_000;
      const count = await runContainer(
        pod,
        'count',
        `i=0; while [ $i -lt ${last} ]; do i=$((i+1)); echo line $i; done`,
      );
      const ends = await runContainer(pod, 'ends', 'until [ -e /tmp/go ]; do sleep 0.1; done; sleep 1; exit 7');
      const { status } = await node.runtime.podSandboxStatus({ podSandboxId: pod.podSandboxId });
      const ip = status?.network?.ip ?? '';
      const pidBefore = await exec(echo, 'cat /proc/sys/kernel/random/boot_id');
      const socket = await until('a connection', () => connectTo(ip, 7));
      const said = receiver(socket);
      socket.write('before\n');
      await until('an echo', async () => (said().includes('before\n') ? true : undefined));
      await until('output', async () => ((await logLines(logPath(pod, 'count'))).length > 200 ? true : undefined));
      await exec(ends, 'touch /tmp/go');

      await node.end(how);
      socket.write('between\n');
      await until('an echo without a daemon', async () => (said().includes('between\n') ? true : undefined));
      await delay(1500); // the container `ends` exits meanwhile
      await node.start();

      const { items } = await node.runtime.listPodSandbox({ filter: { id: pod.podSandboxId } });
      assert.equal(items[0]?.state, PodSandboxState.SANDBOX_READY, node.log());
      assert.deepEqual(items[0].metadata?.attempt, 3);
      assert.deepEqual(items[0].annotations, { why: 'a test' });
      const now = await node.runtime.podSandboxStatus({ podSandboxId: pod.podSandboxId });
      assert.equal(now.status?.network?.ip, ip);
      assert.equal(now.status.createdAt, status?.createdAt);
      assert.equal((await statusOf(echo))?.state, ContainerState.CONTAINER_RUNNING);
      assert.equal((await statusOf(echo))?.metadata?.attempt, 2);
      assert.deepEqual(await exec(echo, 'cat /proc/sys/kernel/random/boot_id'), pidBefore);
      const ended = await becomes(ends, ContainerState.CONTAINER_EXITED);
      assert.equal(ended.exitCode, 7);
      socket.write('after\n');
      await until('an echo afterwards', async () => (said().includes('after\n') ? true : undefined));
      socket.destroy();

      await becomes(count, ContainerState.CONTAINER_EXITED);
      const wanted = Array.from({ length: last }, (_, at) => `line ${at + 1}`);
      const lines = await until('all lines', async () => {
        const found = await logLines(logPath(pod, 'count'));
        return found.length >= last ? found : undefined;
      });
      assert.deepEqual(lines.filter((line, at) => line !== wanted[at]).slice(0, 10), [], node.log());
      assert.equal(lines.length, last);
      const more = await runContainer(pod, 'more', 'echo more; exec sleep 1000');
      assert.deepEqual(await exec(more, 'echo here'), { text: 'here', exitCode: 0 });
      await node.runtime.stopContainer({ containerId: more, timeout: 0n });
      await node.runtime.removeContainer({ containerId: more });
      await node.runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
      assert.deepEqual(await readdir(join(node.cli.root, 'sandboxes')), []);
      assert.deepEqual(await readdir(join(node.cli.root, 'cri/pods')), []);
    });
  }

  it('after SIGKILL: volumes of all kinds keep working, and are released at the end', async () => {
    const pod = await runPod('volumes');
    await using kubelet = await KubeletDirectory.open(pod.config.metadata.uid);
    const shared = join(node.cli.root, 'shared');
    await mkdir(shared);
    const disk = join(node.cli.root, 'disk.img');
    await writeFile(disk, '');
    await truncate(disk, 2 ** 20);
    const configMap = await kubelet.write('configmap', 'app', { key: 'one' });
    const count = 'i=0; while :; do i=$((i+1)); echo $i > /shared/count; sleep 0.1; done';
    const more = {
      mounts: [
        { hostPath: shared, containerPath: '/shared' },
        { hostPath: configMap, containerPath: '/app', readonly: true },
      ],
      devices: [{ hostPath: disk, containerPath: '/dev/data', permissions: 'rwm' }],
    };
    const id = await runContainer(pod, 'main', count, more);
    assert.equal(
      (await exec(id, 'cat /app/key; printf kept | dd of=/dev/data conv=fsync; echo x > /kept')).exitCode,
      0,
    );
    const counted = async () => Number(await readFile(join(shared, 'count'), 'utf8').catch(() => ''));
    await until('a count', async () => ((await counted()) > 0 ? true : undefined));

    await node.end('SIGKILL');
    const atTheKill = await counted();
    await until('counting without a daemon', async () => ((await counted()) > atTheKill + 5 ? true : undefined));
    await kubelet.write('configmap', 'app', { key: 'two' });
    await node.start();

    await until('the new version', async () => ((await exec(id, 'cat /app/key')).text === 'two' ? true : undefined));
    await kubelet.write('configmap', 'app', { key: 'three' });
    await until('the next version', async () => ((await exec(id, 'cat /app/key')).text === 'three' ? true : undefined));
    assert.equal((await exec(id, 'head -c 4 /dev/data; cat /kept')).text, 'keptx');
    const other = await runContainer(pod, 'other', 'exec sleep 1000', more);
    await exec(other, 'echo other > /shared/other');
    assert.equal(await readFile(join(shared, 'other'), 'utf8'), 'other\n');
    for (const containerId of [id, other]) await node.runtime.removeContainer({ containerId });
    assert.equal((await run('losetup', ['--associated', disk])).stdout, '', node.log());
    await node.runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
  });

  it('after SIGKILL: reports an OOM kill of that time, and has written no secret to disk', async () => {
    const pod = await runPod('secrets');
    await using kubelet = await KubeletDirectory.open(pod.config.metadata.uid);
    const [variable, file] = ['variable-4f1d', 'file-9c2e'];
    const secret = await kubelet.write('secret', 'token', { key: file });
    const script = 'until [ -e /tmp/go ]; do sleep 0.1; done; sleep 1; tail /dev/zero';
    const id = await runContainer(pod, 'greedy', script, {
      envs: [{ key: 'TOKEN', value: Buffer.from(variable) }],
      mounts: [{ hostPath: secret, containerPath: '/token', readonly: true }],
      linux: { resources: { memoryLimitInBytes: 32n * 1024n * 1024n } },
    });
    assert.equal((await exec(id, 'cat /token/key; echo $TOKEN; touch /tmp/go')).text, `${file}${variable}`);
    await node.end('SIGKILL');
    for (const text of [variable, file]) {
      const { stdout } = await run('grep', ['-rlF', '--include=*.json', '--include=*.log', text, node.cli.root], {
        okCodes: [0, 1],
      });
      assert.equal(stdout, '');
    }
    await delay(5000); // for the container that ends meanwhile
    await node.start();
    const { exitCode, reason } = await becomes(id, ContainerState.CONTAINER_EXITED);
    assert.deepEqual({ exitCode, reason }, { exitCode: 137, reason: 'OOMKilled' });
    await node.runtime.removePodSandbox({ podSandboxId: pod.podSandboxId });
  });

  it('after SIGKILL: takes over all pods at once; one whose machine has ended fails with the reason', async () => {
    const pods = [];
    for (const name of ['one', 'two', 'three']) {
      const pod = await runPod(name);
      pods.push({ ...pod, id: await runContainer(pod, 'main', 'exec sleep 1000') });
    }
    const [doomed, resting] = pods;
    assert.ok(doomed && resting);
    const [doomedPid, restingPid] = [await vmmPid(doomed), await vmmPid(resting)];
    await node.end('SIGKILL');
    process.kill(doomedPid, 'SIGKILL');
    await untilIdle(restingPid);
    await node.start();
    const { items } = await node.runtime.listPodSandbox();
    const states = Object.fromEntries(items.map(({ id, state }) => [id, state]));
    for (const { podSandboxId, id } of pods) {
      const isDoomed: boolean = podSandboxId === doomed.podSandboxId;
      assert.equal(states[podSandboxId], isDoomed ? PodSandboxState.SANDBOX_NOTREADY : PodSandboxState.SANDBOX_READY);
      const status = await statusOf(id);
      assert.equal(status?.state, isDoomed ? ContainerState.CONTAINER_EXITED : ContainerState.CONTAINER_RUNNING);
      if (isDoomed) assert.match(status.message, /its machine ended while no podvm ran/);
      else assert.equal((await exec(id, 'echo here')).text, 'here');
    }
    const { stdout } = await node.cli.type(['drain', '--grace', '0']);
    assert.deepEqual(stdout.trim().split('\n').sort(), ['default/three stopped', 'default/two stopped']);
    for (const { podSandboxId } of pods) await node.runtime.removePodSandbox({ podSandboxId });
    assert.deepEqual(await readdir(join(node.cli.root, 'sandboxes')), []);
  });

  const vmmPid = async ({ podSandboxId }: { readonly podSandboxId: string }): Promise<number> => {
    const { info } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    return (JSON.parse(info['info'] ?? '') as { pid: number }).pid;
  };

  const logPath = ({ config }: { readonly config: { readonly logDirectory: string } }, container: string) =>
    join(config.logDirectory, `${container}.log`);
});

/** Waits until a machine, which has no daemon, uses less than a twentieth of a processor. */
async function untilIdle(pid: number): Promise<void> {
  const spanMs = 2500;
  const used: number[] = [];
  while (used.length < 10) {
    const before = await cpuMs(pid);
    await delay(spanMs);
    const usedMs = (await cpuMs(pid)) - before;
    if (usedMs < spanMs / 20) return;
    used.push(usedMs);
  }
  assert.fail(`an idle machine used ${used.join(', ')} ms of processor time in spans of ${spanMs} ms without a daemon`);
}

/** Processor time that the process has used, in `ms`. */
async function cpuMs(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'latin1')).split(' ');
  return (Number(fields[13]) + Number(fields[14])) * 10; // utime and stime, in ticks of 10 ms (proc(5))
}

/** Returns undefined if nothing listens: a program may not do so yet when its container runs. */
async function connectTo(host: string, port: number): Promise<Socket | undefined> {
  const socket = createConnection({ host, port });
  socket.on('error', () => {});
  return await once(socket, 'connect').then(
    () => socket,
    () => undefined,
  );
}

function receiver(socket: Socket): () => string {
  let text = '';
  socket.on('data', (bytes: Buffer) => void (text += bytes.toString()));
  return () => text;
}
