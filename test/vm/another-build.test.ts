import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { PodSandboxState } from '#cri/schema/api_pb.ts';
import { logLines } from '../log-lines.ts';
import { type AnotherBuild, makeAnotherBuild } from './make-another-build.ts';
import { openCriNode, startPod, type CriNode } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const image = { image: 'localhost/podvm/base:latest' };
const deadlineMs = 120_000;
/** Pods that run while the daemon is replaced; `PODVM_REPLACED_PODS=20` for many. */
const podCount = Number(process.env['PODVM_REPLACED_PODS'] ?? 3);

/**
 * Time between two lines of a pod. All pods together write 50 a second, each after a new process, which emulated
 * machines can do on two processors.
 */
const pauseSeconds = podCount / 50;

describe(`a daemon of another build takes over ${podCount} pods under load`, { skip: await whyNoVm() }, () => {
  let node: CriNode;
  let another: AnotherBuild;

  before(async () => {
    [another, node] = await Promise.all([makeAnotherBuild(), openCriNode()]);
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await another[Symbol.asyncDispose]();
  });

  const start = (name: string, script: string) => startPod(node, name, script);
  const machineOf = async (podSandboxId: string) => {
    const { info, status } = await node.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    // SAFE: an answer of the daemon under test, which the assertions check
    const { pid, parts } = JSON.parse(info['info'] ?? '') as { pid: number; parts: { key: string; agent: string } };
    return { pid, parts, state: status?.state, ip: status?.network?.ip };
  };
  const exec = async (containerId: string, script: string) => {
    const { stdout } = await node.runtime.execSync({ containerId, cmd: ['sh', '-c', script], timeout: 60n });
    return Buffer.from(stdout).toString().trim();
  };
  const numbersIn = async (log: string) => (await logLines(log)).map(Number);
  const goesOn = async (log: string) => {
    const seen = (await numbersIn(log)).length;
    const giveUpMs = Date.now() + deadlineMs;
    while ((await numbersIn(log)).length < seen + 5) {
      assert.ok(Date.now() < giveUpMs, `no more lines in ${log}`);
      await delay(100);
    }
  };

  it('forwards and back: nothing restarts, no line is lost, and new pods have the new parts', async () => {
    const script = `i=0; while :; do i=$((i+1)); echo $i; sleep ${pauseSeconds}; done`;
    const names = Array.from({ length: podCount }, (_, at) => `pod-${at + 1}`);
    const pods = await Promise.all(names.map((name) => start(name, script)));
    const first = await Promise.all(pods.map(({ podSandboxId }) => machineOf(podSandboxId)));
    const [older] = first;
    assert.ok(older);

    const areAsBefore = async () => {
      const isAsBefore = async ({ podSandboxId, containerId, log }: (typeof pods)[number], at: number) => {
        const now = await machineOf(podSandboxId);
        assert.deepEqual(now, first[at], node.log());
        assert.equal(now.state, PodSandboxState.SANDBOX_READY);
        await goesOn(log);
        assert.equal(await exec(containerId, 'echo here'), 'here');
        const numbers = await numbersIn(log);
        assert.deepEqual(
          numbers.filter((number, index) => number !== index + 1),
          [],
        );
      };
      await Promise.all(pods.map(isAsBefore));
    };
    await areAsBefore();
    await node.end('SIGTERM');
    await node.start(another.program);
    await areAsBefore();
    const newer = await start('newer', 'exec sleep 1000');
    const { parts } = await machineOf(newer.podSandboxId);
    assert.notEqual(parts.agent, older.parts.agent);
    const { containerId: added } = await node.runtime.createContainer({
      podSandboxId: pods[0]?.podSandboxId ?? '',
      sandboxConfig: { metadata: { name: 'pod-1', namespace: 'default', uid: 'uid-of-pod-1', attempt: 0 } },
      config: { metadata: { name: 'added' }, image, command: ['sleep', '1000'] },
    });
    await node.runtime.startContainer({ containerId: added });
    assert.equal(await exec(added, 'echo here'), 'here');

    await node.end('SIGKILL');
    await node.start(); // a downgrade
    await areAsBefore();
    assert.equal(await exec(newer.containerId, 'echo here'), 'here');
    assert.deepEqual((await machineOf(newer.podSandboxId)).parts, parts);
  });
});
