import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { silentLog } from '#host/log.ts';
import { run } from '#host/run.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import { buildImage } from '../test/images/build-images.ts';
import { iperfRecipe } from '../test/images/recipes.ts';
import { type Figures, figureOf, Sheet } from './figures.ts';
import { openContainers, type Pair } from './net-containers.ts';
import { environment, openNode, podvm, startOf, type Node } from './node.ts';
import type { SuiteOptions } from './suite.ts';

const image = 'localhost/podvm/iperf:1';
/** Of one transfer, in `s`. */
const seconds = 3;
const pings = 50;

/**
 * TCP by one stream of iperf3, and round trips by ping, host to pod and pod to pod: `net.hostToPodMbps`,
 * `net.podToHostMbps`, `net.podToPodMbps`, `net.hostToPodRttUs`, `net.podToPodRttUs`; of two containers of crun on a
 * bridge the same, under `peers.crun`; `ratio.*`: ours by theirs. Then what a network costs a start:
 * `start.chainMs` (netns, tap, bridge and portmap alone), `start.machineMs` (a sandbox without a network),
 * `start.sandboxMs` (with it, and a host port), `ratio.start`: the last by the longer of the two. Part of it is
 * `start.guestNetworkMs`: the guest's kernel gives its NIC addresses and routes, and the machine without one does not.
 */
export async function netSuite({ rounds, peers, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using undo = new AsyncDisposableStack();
  const layout = await buildImage(iperfRecipe, new AbortController().signal);
  const node = undo.use(await openNode({ poolSize: 0 }));
  await run(podvm, ['image', 'load', '--name', image, layout], { env: environment(), timeoutMs: 300_000 });
  const pods = undo.use(node.start(iperfPod('bench-net-1') + iperfPod('bench-net-2')));
  await pods.lines(2);
  const ours = pairOfPods((await node.inspect('bench-net-1')).addresses[0] ?? '');
  const theirs = peers.includes('crun') ? await openContainers(layout) : 'not asked for';
  if (typeof theirs === 'string') say(`crun left out: ${theirs}`);
  else undo.use(theirs);
  for (let round = 1; round <= rounds; round += 1) {
    await measure(ours, 'net', sheet);
    if (typeof theirs !== 'string') await measure(theirs, 'peers.crun', sheet);
    say(`round ${round} of ${rounds}`);
  }
  await pods[Symbol.asyncDispose]();
  await phasesOf(node, 'bench-net-warm', ['--network', 'none']); // makes the template of machines without a NIC
  for (let round = 1; round <= rounds; round += 1) await measureStart(node, `bench-net-start-${round}`, sheet);
  return { ...sheet.figures, ...netRatios(sheet.figures) };
}

const maxTries = 20;

/**
 * Runs one transfer, and tries again after a reset: between transfers iperf3's server makes its socket again, and resets
 * clients meanwhile. A bare connection to check whether it listens would count as a failed client.
 */
async function transfer(runs: (command: readonly string[]) => Promise<string>, command: readonly string[]) {
  for (let tries = 1; ; tries += 1) {
    try {
      return mbpsOf(await runs(command));
    } catch (error) {
      if (tries === maxTries) throw error;
      await delay(300);
    }
  }
}

async function measure(pair: Pair, prefix: string, sheet: Sheet): Promise<void> {
  const { address } = pair;
  const onHost = async ([program = '', ...args]: readonly string[]) => (await run(program, args)).stdout;
  sheet.add(`${prefix}.hostToPodMbps`, await transfer(onHost, iperf(address)));
  sheet.add(`${prefix}.podToHostMbps`, await transfer(onHost, [...iperf(address), '--reverse']));
  sheet.add(`${prefix}.podToPodMbps`, await transfer((command) => pair.inOther(command), iperf(address)));
  sheet.add(`${prefix}.hostToPodRttUs`, rttUsOf(await onHost(ping(address))));
  sheet.add(`${prefix}.podToPodRttUs`, rttUsOf(await pair.inOther(ping(address))));
}

const iperf = (address: string) => ['iperf3', '--client', address, '--time', String(seconds), '--json'];
const ping = (address: string) => ['ping', '-q', '-c', String(pings), '-i', '0.02', address];

const iperfSchema = v.object({ end: v.object({ sum_received: v.object({ bits_per_second: v.number() }) }) });
const mbpsOf = (said: string) => v.parse(iperfSchema, JSON.parse(said)).end.sum_received.bits_per_second / 1e6;

function rttUsOf(said: string): number {
  const [, average] = /min\/avg\/max\S* = [0-9.]+\/([0-9.]+)\//.exec(said) ?? [];
  if (average === undefined) throw new Error(`ping said: ${said.slice(-300)}`);
  return Number(average) * 1000;
}

const iperfPod = (name: string) => `---
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: ${image}
      imagePullPolicy: Never
      command: [sh, -c, "echo up; exec iperf3 --server >/dev/null"]
`;

const pairOfPods = (address: string): Pair => ({
  address,
  inOther: async (command) =>
    (await run(podvm, ['exec', 'bench-net-2', '--', ...command], { env: environment() })).stdout,
});

const sleepingPod = (name: string, ports: string) => `---
apiVersion: v1
kind: Pod
metadata: { name: ${name} }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, "echo up; exec sleep 100000"]
      ports: ${ports}
`;

async function measureStart(node: Node, name: string, sheet: Sheet): Promise<void> {
  sheet.add('start.chainMs', await chainMs(name));
  const machine = await phasesOf(node, name, ['--network', 'none']);
  sheet.add('start.machineMs', machine('total'));
  const sandbox = await phasesOf(node, name, [], '[{ containerPort: 80, hostPort: 39850 }]');
  sheet.add('start.sandboxMs', sandbox('total'));
  sheet.add('start.guestNetworkMs', sandbox('guest network'));
}

/** Of one sandbox, from its request until it is ready: how long each took, in `ms`. */
async function phasesOf(
  node: Node,
  name: string,
  options: readonly string[],
  ports = '[]',
): Promise<(phase: string) => number> {
  await using pods = startOf(sleepingPod(name, ports), options);
  await pods.lines(1);
  const { sandbox } = await node.inspect(name);
  return (name) => sandbox?.phases.find((phase) => phase.name === name)?.ms ?? Number.NaN;
}

/** An attachment without a machine, with a host port. */
async function chainMs(sandboxId: string): Promise<number> {
  const directory = await mkdtemp('/var/tmp/podvm-bench-net-');
  const stateDir = join(directory, 'network');
  const network = createHostNetwork({ stateDir, log: silentLog });
  const signal = AbortSignal.timeout(60_000);
  const hostPorts = [{ hostPort: 39_851, containerPort: 80, protocol: 'TCP' }] as const;
  const pod = { podName: 'bench', podNamespace: 'default', podUid: 'uid' };
  const request = { ...pod, sandboxId, mode: 'cni', hostPorts, tapOwnerUid: 64_999 } as const;
  try {
    // The first one also makes the bridge, which is the node's and not the pod's.
    await (await connected({ ...request, sandboxId: `${sandboxId}-0`, hostPorts: [] }))[Symbol.asyncDispose]();
    const startedMs = performance.now();
    const attachment = await connected(request);
    const ms = performance.now() - startedMs;
    await attachment[Symbol.asyncDispose]();
    return ms;
  } finally {
    await network.collect(new Set(), signal);
    await removeDefaultNetwork(stateDir, signal);
    await rm(directory, { recursive: true });
  }

  async function connected(asked: Parameters<typeof network.prepare>[0]) {
    const attachment = await network.prepare(asked, signal);
    await attachment.connect(signal);
    return attachment;
  }
}

function netRatios(figures: Figures): Figures {
  const medianOf = (name: string) => figures[name]?.median ?? Number.NaN;
  const transfers = Object.keys(figures).flatMap((name) => {
    const what = /^peers\.crun\.(\w+)$/.exec(name)?.[1];
    return what === undefined ? [] : [[`ratio.${what}`, medianOf(`net.${what}`) / medianOf(name)] as const];
  });
  const start = medianOf('start.sandboxMs') / Math.max(medianOf('start.chainMs'), medianOf('start.machineMs'));
  return Object.fromEntries(
    [...transfers, ['ratio.start', start] as const].map(([name, ratio]) => [name, exact(ratio)]),
  );
}

/** Figures are rounded to tenths, of which a ratio has not enough. */
function exact(ratio: number): Figures[string] {
  const value = Math.round(ratio * 1000) / 1000;
  return { ...figureOf([value]), min: value, median: value, p99: value, max: value };
}
