import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, readFile, rename, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { WebSocket } from 'ws';
import { is } from '#cri/testing/grpc-client.ts';
import { ContainerState, MountPropagation, NamespaceMode, PodSandboxState } from '#cri/schema/api_pb.ts';
import { run } from '#host/process/run.ts';
import { openCriNode, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';
import { openCliNode, type CliNode } from './cli-node.ts';

const skip = await whyNoVm();
/** Bridge of the CNI configuration that the daemon finds at the end of the test. */
const bridge = 'pvtestcri';
const image = { image: 'localhost/podvm/base:latest' };
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

/** Sends a text on channel 0, and returns what was received on a channel when the server has closed the connection. */
async function converse(url: string, protocol: string, said: string): Promise<(channel: number) => string> {
  const isBase64 = protocol.includes('base64');
  const heard = new Map<number, Buffer>();
  const socket = new WebSocket(url.replace('http:', 'ws:'), protocol === '' ? [] : protocol);
  socket.on('message', (data: Buffer) => {
    const channel = (data[0] ?? 0) - (isBase64 ? 48 : 0);
    const piece = isBase64 ? Buffer.from(data.toString('latin1', 1), 'base64') : data.subarray(1);
    heard.set(channel, Buffer.concat([heard.get(channel) ?? Buffer.of(), piece]));
  });
  await once(socket, 'open');
  assert.equal(socket.protocol, protocol);
  socket.send(isBase64 ? `0${btoa(said)}` : Buffer.concat([Buffer.of(0), Buffer.from(said)]));
  await once(socket, 'close');
  return (channel) => heard.get(channel)?.toString() ?? '';
}

describe('podvm daemon, as a kubelet speaks to it', { skip }, () => {
  let node: CriNode;
  let cli: CliNode;
  let runtime: CriNode['runtime'];

  before(async () => {
    node = await openCriNode({ hasCniDirectory: true });
    ({ cli, runtime } = node);
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await run('ip', ['link', 'delete', bridge]);
  });

  const podOf = (name: string) => ({
    metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 },
    logDirectory: join(cli.root, 'pod-logs', name),
    labels: { pod: name },
  });
  const runPod = async (name: string) => {
    const config = podOf(name);
    const { podSandboxId } = await runtime.runPodSandbox({ config });
    node.ids.push(podSandboxId);
    return { podSandboxId, config };
  };
  const shell = (script: string) => ({
    metadata: { name: 'main', attempt: 0 },
    image,
    command: ['sh', '-c', script],
    logPath: 'main/0.log',
  });
  const stateBecomes = async (containerId: string, state: ContainerState) => {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const { status: seen } = await runtime.containerStatus({ containerId });
      if (seen?.state === state) return seen;
      assert.ok(Date.now() < deadline, `container is in state ${seen?.state}`);
    }
  };
  const logShows = async (path: string, pattern: RegExp) => {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const log = await readFile(path, 'utf8');
      if (pattern.test(log)) return log;
      assert.ok(Date.now() < deadline, `no ${String(pattern)} in ${log}`);
      await runtime.version();
    }
  };

  it('waits for a network’s configuration, reports that, and then connects pods by both families', async () => {
    const condition = async () =>
      (await runtime.status()).status?.conditions.find(({ type }) => type === 'NetworkReady');
    const { status: isReady, message } = (await condition()) ?? {};
    assert.equal(isReady, false);
    assert.match(message ?? '', /no CNI configuration .* in .*net\.d\. Install a cluster network/);
    await assert.rejects(runPod('early'), is(status.FAILED_PRECONDITION, /no CNI configuration/));
    assert.deepEqual((await runtime.listPodSandbox()).items, []);

    const ranges = [[{ subnet: '10.223.0.0/24' }], [{ subnet: 'fd12:5e11:2::/64' }]];
    const ipam = { type: 'host-local', dataDir: join(cli.root, 'ipam'), ranges };
    const plugins = [{ type: 'bridge', bridge, isDefaultGateway: true, ipam }];
    const conflist = { cniVersion: '1.0.0', name: 'podvm', plugins };
    await writeFile(join(cli.root, 'net.d/10.conflist'), JSON.stringify(conflist));
    assert.equal((await condition())?.status, true);
    const { podSandboxId } = await runPod('early');
    const { network } = (await runtime.podSandboxStatus({ podSandboxId })).status ?? {};
    assert.match(network?.ip ?? '', /^10\.223\.0\./);
    assert.match(network?.additionalIps.map(({ ip }) => ip).join() ?? '', /^fd12:5e11:2::/);
    await runtime.removePodSandbox({ podSandboxId });
  });

  it('runs a pod from its sandbox to its removal, with logs, commands, limits and figures', async () => {
    const { podSandboxId, config } = await runPod('whole');
    const { status: pod } = await runtime.podSandboxStatus({ podSandboxId });
    assert.equal(pod?.state, PodSandboxState.SANDBOX_READY);
    assert.match(pod.network?.ip ?? '', /^10\./);

    const script = "trap 'echo bye; exit 4' TERM; echo up; echo no >&2; while :; do sleep 0.1; done";
    const container = { ...shell(script), linux: { resources: { memoryLimitInBytes: 64n << 20n } } };
    const { containerId } = await runtime.createContainer({ podSandboxId, config: container, sandboxConfig: config });
    await runtime.startContainer({ containerId });
    const logPath = join(config.logDirectory, 'main/0.log');
    for (const line of [/^\S+Z stdout F up$/m, /^\S+Z stderr F no$/m]) await logShows(logPath, line); // in any order

    const exec = (...cmd: string[]) => runtime.execSync({ containerId, cmd });
    const { stdout, stderr, exitCode } = await exec('sh', '-c', 'echo out; echo err >&2; hostname; exit 5');
    assert.deepEqual([text(stdout), text(stderr), exitCode], ['out\nwhole\n', 'err\n', 5]);
    const slow = runtime.execSync({ containerId, cmd: ['sleep', '4321'], timeout: 1n });
    await assert.rejects(slow, is(status.DEADLINE_EXCEEDED, /longer than 1 s/));
    assert.doesNotMatch(text((await exec('ps')).stdout), /sleep 4321/);

    await runtime.updateContainerResources({ containerId, linux: { memoryLimitInBytes: 96n << 20n } });
    assert.equal(text((await exec('cat', '/sys/fs/cgroup/memory.max')).stdout), `${96 << 20}\n`);
    const { stats } = await runtime.containerStats({ containerId });
    assert.ok((stats?.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n);
    assert.ok((stats?.memory?.workingSetBytes?.value ?? 0n) > 100_000n);

    await rename(logPath, `${logPath}.1`);
    await runtime.reopenContainerLog({ containerId });
    await runtime.stopContainer({ containerId, timeout: 30n });
    const ended = await stateBecomes(containerId, ContainerState.CONTAINER_EXITED);
    assert.equal(ended.exitCode, 4);
    assert.match(await logShows(logPath, /bye/), /^\S+Z stdout F bye\n$/);

    await runtime.removeContainer({ containerId });
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    assert.deepEqual((await runtime.listPodSandbox()).items, []);
  });

  it('returns the sandbox of a timed-out call to its retry, and undoes a cancelled one', async () => {
    const config = podOf('retried');
    const late = runtime.runPodSandbox({ config }, { deadline: Date.now() + 100 });
    await assert.rejects(late, is(status.DEADLINE_EXCEEDED));
    const { podSandboxId } = await runPod('retried');
    assert.deepEqual(
      (await runtime.listPodSandbox()).items.map(({ id }) => id),
      [podSandboxId],
    );
    await runtime.removePodSandbox({ podSandboxId });

    const stop = new AbortController();
    const cancelled = runtime.runPodSandbox({ config: podOf('cancelled') }, { signal: stop.signal });
    const refused = assert.rejects(cancelled, is(status.CANCELLED));
    await runtime.version(); // the call above has reached the daemon
    stop.abort();
    await refused;
    const { podSandboxId: again } = await runPod('cancelled'); // waits until the first one is undone
    await runtime.removePodSandbox({ podSandboxId: again });
    assert.deepEqual(await readdir(join(cli.root, 'sandboxes')), []);
  });

  it('reports a command that cannot run, one that ran out of memory, and a machine that died', async () => {
    const { podSandboxId, config } = await runPod('bad');
    const create = (container: object, name: string) =>
      runtime.createContainer({
        podSandboxId,
        sandboxConfig: config,
        config: { ...shell(''), metadata: { name, attempt: 0 }, logPath: `${name}/0.log`, ...container },
      });
    const { containerId: missing } = await create({ command: ['/no/such/program'] }, 'missing');
    await assert.rejects(runtime.startContainer({ containerId: missing }), is(status.FAILED_PRECONDITION));
    assert.equal((await stateBecomes(missing, ContainerState.CONTAINER_EXITED)).reason, 'StartError');

    const hungry = { command: ['sh', '-c', 'x=a; while :; do x=$x$x; done'] };
    const limits = { linux: { resources: { memoryLimitInBytes: 15n << 20n } } };
    const { containerId: killed } = await create({ ...hungry, ...limits }, 'hungry');
    await runtime.startContainer({ containerId: killed });
    const ended = await stateBecomes(killed, ContainerState.CONTAINER_EXITED);
    assert.deepEqual([ended.reason, ended.exitCode], ['OOMKilled', 137]);

    const hostPath = join(cli.root, 'last-words');
    await writeFile(hostPath, '');
    const { containerId: doomed } = await create(
      {
        ...shell('echo -n "no luck" > /dev/last-words; echo written; sleep 1000'),
        metadata: { name: 'doomed', attempt: 0 },
        logPath: 'doomed/0.log',
        annotations: { 'io.kubernetes.container.terminationMessagePath': '/dev/last-words' },
        mounts: [{ containerPath: '/dev/last-words', hostPath }],
      },
      'doomed',
    );
    await runtime.startContainer({ containerId: doomed });
    await logShows(join(config.logDirectory, 'doomed/0.log'), /written/);
    // By its own clock the guest looks 0.2 s after a write at the latest, and it is answered after what it has looked at.
    await runtime.execSync({ containerId: doomed, cmd: ['sleep', '0.3'] });

    const { info } = await runtime.podSandboxStatus({ podSandboxId, verbose: true });
    const { pid } = JSON.parse(info['info'] ?? '') as { pid: number };
    process.kill(pid, 'SIGKILL');
    const deadline = Date.now() + 60_000;
    for (;;) {
      const { status: seen } = await runtime.podSandboxStatus({ podSandboxId });
      if (seen?.state === PodSandboxState.SANDBOX_NOTREADY) break;
      assert.ok(Date.now() < deadline, 'the pod stays ready without its machine');
    }
    const lost = await stateBecomes(doomed, ContainerState.CONTAINER_EXITED);
    assert.match(lost.message, /SIGKILL|killed/);
    assert.equal(await readFile(hostPath, 'utf8'), 'no luck');
    await runtime.removePodSandbox({ podSandboxId });
  });

  it('gives a container its block volume, which no other podvm gets meanwhile', async () => {
    const disk = join(cli.root, 'disk.img');
    await writeFile(disk, '');
    await truncate(disk, 2 ** 20);
    const loop = (await run('losetup', ['--find', '--show', disk])).stdout.trim();
    const { podSandboxId, config } = await runPod('block');
    try {
      const devices = [{ hostPath: loop, containerPath: '/dev/data', permissions: 'rwm' }];
      const container = { ...shell('printf kept | dd of=/dev/data conv=fsync && echo written; sleep 1000'), devices };
      const { containerId } = await runtime.createContainer({
        podSandboxId,
        config: container,
        sandboxConfig: config,
      });
      await runtime.startContainer({ containerId });
      await logShows(join(config.logDirectory, 'main/0.log'), /written/);
      const raw = { name: 'disk', hostPath: { path: loop, type: 'BlockDevice' } };
      const spec = {
        restartPolicy: 'Never',
        volumes: [raw],
        containers: [{ name: 'c', ...image, volumeDevices: [{ name: 'disk', devicePath: '/dev/x' }] }],
      };
      await using other = await openCliNode({ isSetUp: true });
      const yaml = JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'other' }, spec });
      const waiting = other.start(['run', '-'], yaml); // and tries again, as a kubelet does
      await waiting.shows(/Cannot attach \/dev\/loop\d+: it is in use by the host or another machine/);
    } finally {
      await runtime.removePodSandbox({ podSandboxId });
      await run('losetup', ['--detach', loop]);
    }
    assert.equal((await readFile(disk, 'latin1')).slice(0, 4), 'kept');
  });

  it('refuses what a pod requests of the host’s kernel, each with a fix', async () => {
    for (const [kind, words] of [
      ['network', /hostNetwork is not supported[^]*use hostPort/],
      ['pid', /hostPID is not supported[^]*use shareProcessNamespace/],
      ['ipc', /hostIPC is not supported[^]*Remove hostIPC/],
    ] as const) {
      const linux = { securityContext: { namespaceOptions: { [kind]: NamespaceMode.NODE } } };
      const config = { ...podOf(`host-${kind}`), linux };
      await assert.rejects(runtime.runPodSandbox({ config }), is(status.UNIMPLEMENTED, words));
    }
    const { podSandboxId, config } = await runPod('apart');
    const create = (mount: object) =>
      runtime.createContainer({
        podSandboxId,
        sandboxConfig: config,
        config: { ...shell('sleep 1000'), mounts: [{ containerPath: '/host', hostPath: cli.root, ...mount }] },
      });
    for (const [mount, words] of [
      [{ hostPath: join(cli.root, 'cri.sock') }, /it is a socket[^]*over the network/],
      [{ hostPath: '/dev' }, /the host's kernel/],
      [{ hostPath: '/dev/null' }, /character device/],
      [{ hostPath: '/proc' }, /the host's kernel/],
      [{ hostPath: '/proc/1/ns' }, /the host's kernel/],
      [{ hostPath: '/sys/fs/cgroup' }, /the host's kernel/],
      [{ propagation: MountPropagation.PROPAGATION_BIDIRECTIONAL }, /cannot appear on the host[^]*HostToContainer/],
    ] as const)
      await assert.rejects(create(mount), is(status.UNIMPLEMENTED, words));
    const { containerId } = await create({});
    await runtime.startContainer({ containerId });
    assert.equal((await runtime.execSync({ containerId, cmd: ['test', '-S', '/host/cri.sock'] })).exitCode, 0);
    await runtime.removePodSandbox({ podSandboxId });
  });

  it('lets a privileged container make links by a command, and no other container', async () => {
    const { podSandboxId, config } = await runPod('links');
    const start = async (name: string, privileged: boolean) => {
      const metadata = { name, attempt: 0 };
      const container = { ...shell('sleep 1000'), metadata, linux: { securityContext: { privileged } } };
      const { containerId } = await runtime.createContainer({ podSandboxId, config: container, sandboxConfig: config });
      await runtime.startContainer({ containerId });
      return async (...words: string[]) => {
        const { exitCode, stderr } = await runtime.execSync({ containerId, cmd: ['ip', 'link', ...words] });
        return { exitCode, said: text(stderr) };
      };
    };
    const [plain, privileged] = [await start('plain', false), await start('privileged', true)];
    assert.deepEqual(await privileged('add', 'dummy1', 'type', 'dummy'), { exitCode: 0, said: '' });
    assert.deepEqual(await privileged('del', 'dummy1'), { exitCode: 0, said: '' });
    assert.match((await plain('add', 'dummy1', 'type', 'dummy')).said, /Operation not permitted/);
    await runtime.removePodSandbox({ podSandboxId });
  });

  it('streams a command and a port over every WebSocket protocol of a kubelet’s clients', async () => {
    const { podSandboxId, config } = await runPod('streams');
    const container = shell('mkdir /www; echo -n served >/www/file; exec httpd -f -p 8080 -h /www');
    const { containerId } = await runtime.createContainer({ podSandboxId, config: container, sandboxConfig: config });
    await runtime.startContainer({ containerId });
    const cmd = ['sh', '-c', 'read line; echo got $line; exit 3'];
    for (const [protocol, status] of [
      ['v5.channel.k8s.io', /"ExitCode","message":"3"/],
      ['v4.channel.k8s.io', /"ExitCode","message":"3"/],
      ['v4.base64.channel.k8s.io', /"ExitCode","message":"3"/],
      ['channel.k8s.io', /^command terminated with non-zero exit code: 3$/],
      ['base64.channel.k8s.io', /^command terminated with non-zero exit code: 3$/],
      ['', /^command terminated with non-zero exit code: 3$/],
    ] as const) {
      const { url } = await runtime.exec({ containerId, cmd, stdin: true, stdout: true });
      const heard = await converse(url, protocol, 'a line\n');
      assert.equal(heard(1), 'got a line\n', protocol);
      assert.match(heard(3), status, protocol);
    }
    const isServed = 'until wget -qO- http://127.0.0.1:8080/file; do sleep 0.1; done';
    await runtime.execSync({ containerId, cmd: ['sh', '-c', isServed], timeout: 60n });
    for (const protocol of ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io', '']) {
      const { url } = await runtime.portForward({ podSandboxId, port: [8080] });
      const heard = await converse(url, protocol, 'GET /file HTTP/1.0\r\n\r\n');
      assert.match(heard(0), /\r\n\r\nserved$/, protocol);
    }
    await runtime.removePodSandbox({ podSandboxId });
  });

  it('serves images to a kubelet and to the other commands alike', async () => {
    const { images } = node;
    const { image: found } = await images.imageStatus({ image });
    assert.deepEqual(found?.repoTags, [image.image]);
    assert.match((await cli.type(['image', 'ls'])).stdout, /localhost\/podvm\/base:latest/);
    const { imageFilesystems } = await images.imageFsInfo();
    assert.equal(imageFilesystems[0]?.usedBytes?.value, found?.size);
    // A kubelet knows an image by all of its names, and removes all of them by any one.
    const tagged = 'docker.io/team/base:1';
    assert.equal((await cli.type(['image', 'tag', image.image, 'team/base:1'])).code, 0);
    for (const wanted of ['team/base:1', found?.id.replace('sha256:', '') ?? '']) {
      const status = await images.imageStatus({ image: { image: wanted } });
      assert.deepEqual(status.image?.repoTags, [image.image, tagged]);
    }
    assert.deepEqual(
      (await images.listImages()).images.flatMap(({ repoTags }) => repoTags),
      [image.image, tagged],
    );
    await images.removeImage({ image: { image: tagged } });
    for (const gone of [image, { image: tagged }, { image: found?.id ?? '' }]) {
      assert.equal((await images.imageStatus({ image: gone })).image, undefined);
      await images.removeImage({ image: gone });
    }
  });
});
