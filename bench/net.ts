import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { silentLog } from '#host/log/log.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import { type Figures, figureOf, Sheet } from './figures.ts';
import { openNode, startOf, type Node } from './node.ts';
import type { SuiteOptions } from './suite.ts';

/**
 * Measures the cost of a network for a start: `start.chainMs` (netns, tap, bridge and portmap alone), `start.machineMs`
 * (a sandbox without a network), `start.sandboxMs` (with it, and a host port), `ratio.start`: the last divided by the
 * longer of the first two. Part of it is `start.guestNetworkMs`: the guest's kernel gives its NIC addresses and routes,
 * which the machine without a network does not. Throughput is a row of `npm run bench -- versus`.
 */
export async function netSuite({ rounds, say }: SuiteOptions): Promise<Figures> {
  const sheet = new Sheet();
  await using node = await openNode({ poolSize: 0 });
  await phasesOf(node, 'bench-net-warm', ['--network', 'none']); // makes the template of machines without a NIC
  for (let round = 1; round <= rounds; round += 1) {
    await measureStart(node, `bench-net-start-${round}`, sheet);
    say(`round ${round} of ${rounds}`);
  }
  const medianOf = (name: string) => sheet.figures[name]?.median ?? Number.NaN;
  const longer = Math.max(medianOf('start.chainMs'), medianOf('start.machineMs'));
  return { ...sheet.figures, 'ratio.start': figureOf([medianOf('start.sandboxMs') / longer]) };
}

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

/** Durations of the phases of one start, from request to ready, in `ms`. */
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
