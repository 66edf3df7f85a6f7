import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import * as v from 'valibot';
import { messageOf } from '#base/errors.ts';
import { ContainerState, NamespaceMode, PodSandboxState } from '#cri/schema/api_pb.ts';
import { logLines } from '../log-lines.ts';
import { openCriNode, type CriNode } from '../vm/cri-node.ts';
import { killDatabases } from './databases.ts';
import { faults, type Target } from './faults.ts';

/*
 * `npm run chaos -- [--minutes 10] [--pods 4] [--seed 1]`: one fault after the other, by chance, on a node whose pods write
 * to their logs and volumes. After each, pods that have ended are made again, as a kubelet does, all must run, and no log
 * may lack a line or have one twice; a fault that does not concern a pod's processes must leave all pods as they were. At
 * the end all is removed, and nothing may be left on the host. The same seed gives the same faults.
 *
 * `npm run chaos -- --databases [--rounds 2]`: PostgreSQL and SQLite on each kind of volume, which are ended while they write.
 */
const recoveryMs = 180_000;
const pollMs = 200;
const image = { image: 'localhost/podvm/base:latest' };
const say = (text: string) => process.stderr.write(`chaos: ${text}\n`);

/** Writes one number after the other, to its log and to a share. */
const script =
  'trap "exit 3" TERM; i=0; while :; do i=$((i+1)); echo $i; { echo $i > /shared/count; } 2>/dev/null; sleep 0.05; done';

interface Attempt {
  readonly sandboxId: string;
  readonly containerId: string;
  readonly log: string;
}

/** A pod that is made again when it has ended. */
class Pod {
  readonly #node: CriNode;
  readonly name: string;
  #attempts: Attempt[] = [];

  constructor(node: CriNode, name: string) {
    this.#node = node;
    this.name = name;
  }

  get now(): Attempt {
    return this.#attempts.at(-1) ?? assert.fail(`${this.name} was never started`);
  }

  get attempts(): number {
    return this.#attempts.length;
  }

  async start(): Promise<void> {
    const attempt = this.#attempts.length;
    const metadata = { name: this.name, namespace: 'chaos', uid: `uid-of-${this.name}`, attempt };
    const sandboxConfig = {
      metadata,
      logDirectory: join(this.#node.cli.root, 'pod-logs', `${this.name}-${attempt}`),
      linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } }, // as a kubelet
    };
    const shared = join(this.#node.cli.root, 'shared', this.name);
    await mkdir(shared, { recursive: true });
    const { podSandboxId } = await this.#node.runtime.runPodSandbox({ config: sandboxConfig });
    this.#node.ids.push(podSandboxId);
    const config = {
      metadata: { name: 'main' },
      image,
      command: ['sh', '-c', script],
      logPath: 'main.log',
      mounts: [{ hostPath: shared, containerPath: '/shared' }],
    };
    const { containerId } = await this.#node.runtime.createContainer({ podSandboxId, sandboxConfig, config });
    await this.#node.runtime.startContainer({ containerId });
    this.#attempts.push({ sandboxId: podSandboxId, containerId, log: join(sandboxConfig.logDirectory, 'main.log') });
  }

  async isRunning(): Promise<boolean> {
    const { sandboxId, containerId } = this.now;
    const sandbox = await this.#node.runtime.podSandboxStatus({ podSandboxId: sandboxId });
    const container = await this.#node.runtime.containerStatus({ containerId });
    return (
      sandbox.status?.state === PodSandboxState.SANDBOX_READY &&
      container.status?.state === ContainerState.CONTAINER_RUNNING
    );
  }

  async startAgain(): Promise<void> {
    const { sandboxId } = this.now;
    await this.#node.runtime.stopPodSandbox({ podSandboxId: sandboxId });
    await this.#node.runtime.removePodSandbox({ podSandboxId: sandboxId });
    await this.start();
  }

  async target(): Promise<Target> {
    const { sandboxId, containerId } = this.now;
    const { info, status } = await this.#node.runtime.podSandboxStatus({ podSandboxId: sandboxId, verbose: true });
    const { pid } = v.parse(v.object({ pid: v.number() }), JSON.parse(info['info'] ?? ''));
    return { node: this.#node, sandboxId, containerId, pid, address: status?.network?.ip ?? '' };
  }

  /** Lines in the log of the present attempt. Errors: one is lost, or there twice. */
  async checkLogs(): Promise<number> {
    let count = 0;
    for (const { log } of this.#attempts) {
      const lines = await logLines(log);
      const wrong = lines.findIndex((line, at) => line !== String(at + 1));
      assert.equal(wrong, -1, `${log}: line ${wrong + 1} is ${lines[wrong]}`);
      count = lines.length;
    }
    return count;
  }
}

/** Waits until all run and write. Ended ones are made again; calls to a starting daemon are repeated. */
async function recover(pods: readonly Pod[]): Promise<void> {
  const giveUpMs = Date.now() + recoveryMs;
  for (const pod of pods) {
    let written: number | undefined;
    for (;;) {
      try {
        if (!(await pod.isRunning())) {
          await pod.startAgain();
          written = undefined;
        }
        const lines = await pod.checkLogs();
        written ??= lines;
        if (lines > written) break;
      } catch (error) {
        if (error instanceof assert.AssertionError || Date.now() > giveUpMs) throw error;
        say(`${pod.name}: ${messageOf(error)}`);
      }
      assert.ok(Date.now() < giveUpMs, `${pod.name} does not recover`);
      await delay(pollMs);
    }
  }
}

/** Random numbers from a seed, which `Math.random` does not take. */
function chance(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      pods: { type: 'string', default: '4' },
      databases: { type: 'boolean', default: false },
      rounds: { type: 'string', default: '2' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    },
  });
  const below = chance(Number(values.seed));
  say(`seed ${values.seed}`);
  if (values.databases) return await killDatabases({ rounds: Number(values.rounds), below, say });
  await using node = await openCriNode();
  const pods = Array.from({ length: Number(values.pods) }, (_, at) => new Pod(node, `pod-${at + 1}`));
  for (const pod of pods) await pod.start();
  await recover(pods);
  const counts = new Map<string, number>();
  const endMs = Date.now() + Number(values.minutes) * 60_000;
  while (Date.now() < endMs) {
    const fault = faults[below(faults.length)] ?? assert.fail('no fault');
    const pod = pods[below(pods.length)] ?? assert.fail('no pod');
    say(`${fault.name} (${pod.name})`);
    const before = pods.map(({ attempts }) => attempts);
    await fault.happen(await pod.target());
    if (!fault.isHarmless) await ended(pod);
    await recover(pods);
    const others = pods.map(({ attempts }, at) => attempts - (before[at] ?? 0));
    const wanted = pods.map((each) => (each === pod && !fault.isHarmless ? 1 : 0));
    assert.deepEqual(others, wanted, `${fault.name}: pods that were made again`);
    counts.set(fault.name, (counts.get(fault.name) ?? 0) + 1);
  }
  for (const [name, count] of counts) say(`${count} times: ${name}`);
}

/** Waits for the end of a pod: a stopped machine is found within half a minute. */
async function ended(pod: Pod): Promise<void> {
  const giveUpMs = Date.now() + recoveryMs;
  while (await pod.isRunning()) {
    assert.ok(Date.now() < giveUpMs, `${pod.name} runs on`);
    await delay(pollMs);
  }
}

try {
  await main();
  say('passed: nothing was lost, and nothing is left');
} catch (error) {
  say(`FAILED: ${error instanceof Error ? error.stack : messageOf(error)}`);
  process.exitCode = 1;
}
