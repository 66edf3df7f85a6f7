import { mkdtemp, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { NamespaceMode } from '#cri/schema/api_pb.ts';
import { run } from '#host/process/run.ts';
import { type CriNode, openCriNode } from './cri-node.ts';
import { type Figures, Sheet } from './figures.ts';
import { environment, nodeRoot, podvm, untilWaiting } from './node.ts';
import { makeRelease } from './release.ts';
import { type CalledPod, callSteadily } from './steady-calls.ts';
import type { SuiteOptions } from './suite.ts';

/** Time for the work that the last pod left, in `ms`. */
const restMs = 2_000;
const maxLifecycles = 10;
const callsPerSecond = 1_000;
const loadSeconds = 60;
const setUpTimeoutMs = 30 * 60_000;
const image = { image: 'localhost/podvm/base:latest' };

/**
 * Measures a release, as users install it. The verbs of a pod's life as a kubelet calls them, each from request to answer, on a node without a pool (`cri.*`) and
 * on one as it comes, where a machine waits (`criPooled.*`); `fromScratchMs` is a pod with a running container. Then, beside `n`
 * running pods, a thousand lists and statuses a second for a while: `criLoad.<verb>Ms` of each,
 * `criLoad.callsPerSecond`, and the daemon's resident memory with these pods before any call, after the first 15 s of them,
 * and after the minute, `criLoad.{idle,before,after}KiB`.
 */
export async function criSuite({ rounds: count, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using undo = new AsyncDisposableStack();
  const work = await mkdtemp('/var/tmp/podvm-bench-');
  undo.defer(() => rm(work, { recursive: true }));
  await run(podvm, ['setup'], { env: environment(), timeoutMs: setUpTimeoutMs });
  const program = await makeRelease(nodeRoot, work, AbortSignal.timeout(setUpTimeoutMs));
  for (const [name, poolSize, waiting] of [
    ['cri', 0, 0],
    ['criPooled', undefined, 1],
  ] as const) {
    await using node = await openCriNode(poolSize, {}, program);
    for (let round = 1; round <= Math.min(count, maxLifecycles); round += 1) {
      await untilWaiting(waiting);
      await delay(restMs);
      await live(node, `bench-${name.toLowerCase()}-${round}`, name, sheet);
      say(`${name}: ${round}`);
    }
  }
  await using node = await openCriNode(undefined, {}, program);
  const pods: CalledPod[] = [];
  for (let at = 1; at <= count; at += 1) {
    pods.push(await startPod(node, `bench-load-${at}`, (_, call) => call()));
    say(`${at} pods run`);
  }
  await load(node, pods, sheet, say);
  for (const { podSandboxId } of pods) await node.runtime.removePodSandbox({ podSandboxId });
  return sheet.figures;
}

type Timing = <T>(verb: string, call: () => Promise<T>) => Promise<T>;

async function startPod({ runtime }: CriNode, name: string, timed: Timing): Promise<CalledPod> {
  const sandboxConfig = {
    metadata: { name, namespace: 'bench', uid: `uid-${name}`, attempt: 0 },
    linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } }, // as a kubelet
  };
  const config = { metadata: { name: 'main' }, image, command: ['sleep', '100000'] };
  const { podSandboxId } = await timed('runPodSandbox', () => runtime.runPodSandbox({ config: sandboxConfig }));
  const { containerId } = await timed('createContainer', () =>
    runtime.createContainer({ podSandboxId, config, sandboxConfig }),
  );
  await timed('startContainer', () => runtime.startContainer({ containerId }));
  return { podSandboxId, containerId };
}

async function live(node: CriNode, name: string, prefix: string, sheet: Sheet): Promise<void> {
  const { runtime } = node;
  const timed: Timing = async (verb, call) => {
    const startedMs = performance.now();
    const answer = await call();
    sheet.add(`${prefix}.${verb}Ms`, performance.now() - startedMs);
    return answer;
  };
  const { podSandboxId, containerId } = await timed('fromScratch', () => startPod(node, name, timed));
  await timed('podSandboxStatus', () => runtime.podSandboxStatus({ podSandboxId }));
  await timed('containerStatus', () => runtime.containerStatus({ containerId }));
  await timed('listPodSandbox', () => runtime.listPodSandbox());
  await timed('listContainers', () => runtime.listContainers());
  await timed('stopContainer', () => runtime.stopContainer({ containerId, timeout: 0n }));
  await timed('removeContainer', () => runtime.removeContainer({ containerId }));
  await timed('stopPodSandbox', () => runtime.stopPodSandbox({ podSandboxId }));
  await timed('removePodSandbox', () => runtime.removePodSandbox({ podSandboxId }));
}

/** Errors: those of calls that fail. */
async function load(node: CriNode, pods: readonly CalledPod[], sheet: Sheet, say: SuiteOptions['say']): Promise<void> {
  const callAll = async (seconds: number): Promise<void> => {
    const rate = await callSteadily(node.runtime, pods, { callsPerSecond, seconds }, (verb, ms) =>
      sheet.add(`criLoad.${verb}Ms`, ms),
    );
    sheet.add('criLoad.callsPerSecond', rate);
  };
  const memory = async (name: string): Promise<void> => {
    const { residentKiB, anonymousKiB, fileKiB } = await node.memory();
    sheet.add(`criLoad.${name}KiB`, residentKiB);
    say(`the daemon's memory ${name}: ${residentKiB} KiB, of which ${anonymousKiB} anonymous, ${fileKiB} of files`);
  };
  await delay(restMs);
  await memory('idle');
  await callAll(loadSeconds / 4); // code is compiled, heaps have grown
  await memory('before');
  await callAll(loadSeconds);
  await memory('after');
}
