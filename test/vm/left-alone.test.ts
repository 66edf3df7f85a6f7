import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ContainerState, PodSandboxState } from '#cri/schema/api_pb.ts';
import { identify, isRunning } from '#host/process/process-identity.ts';
import { poll } from '#host/wait.ts';
import { tracesOf } from '../leaks.ts';
import { type AnotherBuild, makeAnotherBuild, otherProtocol } from './make-another-build.ts';
import { openCriNode, startPod, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const deadlineMs = 120_000;

/** Takes connections, which shows that the pod runs and is reached while no podvm can call its agent. */
const server = 'exec nc -ll -p 8080 -e cat';

describe('pods that the next daemon cannot take over', { skip: await whyNoVm() }, () => {
  let node: CriNode;
  let another: AnotherBuild;
  let kept: Pod;

  before(async () => {
    [another, node] = await Promise.all([makeAnotherBuild(otherProtocol), openCriNode()]);
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await another[Symbol.asyncDispose]();
  });

  const start = async (name: string) => {
    const { podSandboxId, containerId, config } = await startPod(node, name, server);
    const { status, info } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    // SAFE: an answer of the daemon under test
    const { pid } = JSON.parse(info['info'] ?? '') as { pid: number };
    const machine = (await identify(pid)) ?? assert.fail('no machine');
    return { podSandboxId, containerId, config, machine, ip: status?.network?.ip ?? assert.fail('no address') };
  };
  type Pod = Awaited<ReturnType<typeof start>>;

  const makeNewer = async ({ podSandboxId }: Pod) => {
    const path = join(node.cli.root, 'sandboxes', podSandboxId, 'sandbox.json');
    const record = JSON.parse(await readFile(path, 'utf8')) as object;
    await writeFile(path, JSON.stringify({ ...record, version: 9 }));
  };

  const answers = async ({ ip }: Pod) => {
    const found = await poll(
      async () => {
        const socket = createConnection({ host: ip, port: 8080 });
        try {
          await once(socket, 'connect');
          return true;
        } catch {
          return undefined; // it does not listen yet
        } finally {
          socket.destroy();
        }
      },
      { everyMs: 100, signal: AbortSignal.timeout(deadlineMs) },
    );
    assert.ok(found, `${ip} does not answer`);
  };

  /** What a kubelet looks at before it starts a pod again. */
  const isLeftAlone = async (pod: Pod, why: RegExp) => {
    const { podSandboxId, containerId, config, machine, ip } = pod;
    const { status, info } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    assert.deepEqual([status?.state, status?.network?.ip], [PodSandboxState.SANDBOX_READY, ip]);
    assert.match(info['info'] ?? '', why);
    const container = await node.runtime.containerStatus({ containerId });
    assert.equal(container.status?.state, ContainerState.CONTAINER_RUNNING);
    assert.equal((await node.runtime.runPodSandbox({ config })).podSandboxId, podSandboxId, 'no second one');
    await assert.rejects(node.runtime.execSync({ containerId, cmd: ['true'], timeout: 60n }), why);
    assert.ok(await isRunning(machine));
    await answers(pod);
  };
  const ps = async () => {
    const { stdout, stderr } = await node.cli.type(['ps']);
    return { lines: stdout.split('\n'), stderr };
  };
  const isEnded = async ({ podSandboxId, containerId, machine }: Pod) => {
    assert.equal(await isRunning(machine), false);
    const { status } = await node.runtime.podSandboxStatus({ podSandboxId });
    assert.equal(status?.state, PodSandboxState.SANDBOX_NOTREADY);
    const container = await node.runtime.containerStatus({ containerId });
    assert.deepEqual([container.status?.state, container.status?.exitCode], [ContainerState.CONTAINER_EXITED, 137]);
    await node.runtime.removePodSandbox({ podSandboxId });
    assert.deepEqual(await tracesOf({ ids: [podSandboxId] }), []);
  };

  it('run on, are listed with the reason, and end when their client or an operator wants it', async () => {
    const [newer, foreign, third] = await Promise.all(['newer', 'foreign', 'kept'].map(start));
    assert.ok(newer && foreign && third);
    kept = third;
    await node.end('SIGKILL');
    await makeNewer(newer);
    process.env['PODVM_TEMPLATE'] = 'off'; // no pod starts from here on
    await node.start(another.program);
    await isLeftAlone(newer, /a newer podvm has written its record \(version 9/);
    for (const pod of [foreign, kept]) await isLeftAlone(pod, /its agent speaks another protocol/);
    const { lines, stderr } = await ps();
    assert.equal(lines.filter((line) => / LeftAlone .* kubelet /.test(line)).length, 3, lines.join('\n'));
    assert.match(stderr, /warning: Cannot take over default\/newer: a newer podvm .*\n/);
    assert.match(stderr, /warning: Cannot take over default\/foreign: its agent speaks another protocol\n/);
    assert.match(stderr, /podvm stop/);

    const { code, stdout } = await node.cli.type(['stop', 'newer']);
    assert.deepEqual([code, stdout], [0, 'default/newer stopped\n']);
    await isEnded(newer);
    await node.runtime.stopContainer({ containerId: foreign.containerId, timeout: 1n });
    await node.runtime.stopPodSandbox({ podSandboxId: foreign.podSandboxId });
    await isEnded(foreign);

    await node.end('SIGTERM');
    assert.ok(await isRunning(kept.machine));
    await node.start(); // the build that made it
    const { info } = await node.runtime.podSandboxStatus({ podSandboxId: kept.podSandboxId, verbose: true });
    assert.doesNotMatch(info['info'] ?? '', /leftAlone/);
    const { stdout: said } = await node.runtime.execSync({
      containerId: kept.containerId,
      cmd: ['echo', 'here'],
      timeout: 60n,
    });
    assert.equal(Buffer.from(said).toString(), 'here\n');
    await answers(kept);
  });

  it('are listed as orphaned without a daemon, and ended as such', async () => {
    await node.end('SIGTERM');
    await makeNewer(kept);
    const listed = await ps();
    assert.equal(listed.lines.filter((line) => / Orphaned /.test(line)).length, 1, listed.lines.join('\n'));
    assert.match(listed.stderr, /warning: a machine is running, but no podvm serves it/);
    assert.ok(await isRunning(kept.machine));
    const { code, stdout } = await node.cli.type(['stop', '--orphaned']);
    assert.deepEqual([code, stdout], [0, 'default/kept stopped\n']);
    assert.equal(await isRunning(kept.machine), false);
    assert.deepEqual(await tracesOf({ ids: [kept.podSandboxId] }), []);
    await node.start();
    assert.deepEqual((await node.runtime.listPodSandbox()).items, []);
    for (const directory of ['sandboxes', 'cri/pods']) {
      const left = await readdir(join(node.cli.root, directory));
      assert.deepEqual(
        left.filter((name) => name.includes(kept.podSandboxId)),
        [],
        `it is left in ${directory}`,
      );
    }
  });
});
