import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { nodeDetailsSchema } from '#api/node.ts';
import { createClient } from '#cli/client.ts';
import { RuntimeService } from '#cri/schema/api_pb.ts';
import { connectTestClient, type StreamingClient } from '#cri/testing/grpc-client.ts';
import { startNode } from '../../test/conformance/node.ts';
import { type ContainerdNode, startContainerd } from '../../test/containerd/containerd-node.ts';
import { writeLayout } from '../../test/images/layout-writer.ts';
import { type Registry, startRegistry } from '../../test/images/registry.ts';
import { type CriPeer, imagesOf } from './cri-peer.ts';
import type { Prepared } from './prepared.ts';
import type { Contestant } from './table.ts';

/** The contestants, running side by side in one network namespace, and their shared resources. */
export interface Field {
  readonly prepared: Prepared;
  readonly registry: Registry;
  readonly containerd: ContainerdNode;
  /** References of busybox, in each of them; with iperf3 and ping. */
  readonly images: { readonly base: string; readonly iperf: string };
  /** State directories of the daemons. */
  readonly roots: { readonly podvm: string; readonly cold: string };
  /** The contestant as a peer behind CRI. */
  peer(name: Contestant): CriPeer;
  /** Resolves when the contestant has finished its earlier work. */
  rest(name: Contestant): Promise<void>;
  /** Starts another daemon of PodVM, with defaults and the image `base`. */
  startPodvm(undo: AsyncDisposableStack): Promise<PodvmPeer>;
}

/** A daemon of PodVM. */
export interface PodvmPeer extends CriPeer {
  readonly log: () => Promise<string>;
}

/** Time in which a runtime finishes closing after its last answer, in `ms`. */
const restMs = 300;
const pollMs = 100;
/**
 * Time without growth after which the pool counts as full, in `ms`: longer than it pauses after a start
 * (`settleMs` in `src/sandbox/start/pool.ts`) and makes one machine. Otherwise its work is no part of what is measured.
 */
const steadyMs = 5_000;
const restTimeoutMs = 120_000;

/** A network like that of a cluster, the same for all. */
const network = (work: string) => ({
  cniVersion: '1.0.0',
  name: 'versus',
  plugins: [
    {
      type: 'bridge',
      bridge: 'versus0',
      isGateway: true,
      ipMasq: false,
      ipam: {
        type: 'host-local',
        dataDir: join(work, 'ipam'),
        ranges: [[{ subnet: '10.222.0.0/16' }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
});

export async function openField(prepared: Prepared, undo: AsyncDisposableStack, signal: AbortSignal): Promise<Field> {
  const { work, programs, cgroupParent } = prepared;
  const registry = undo.use(await startRegistry());
  const images = await pushImages(prepared, registry);
  const containerdWork = join(work, 'containerd');
  const shimSocket = join(work, 'shim.sock');
  await mkdir(containerdWork);
  const containerd = undo.use(
    await startContainerd({
      programs,
      work: containerdWork,
      shimSocket,
      network: network(work),
      pauseImage: images.pause,
    }),
  );
  const containersDirectory = join(work, 'containers');
  await mkdir(containersDirectory);
  const location = `[[registry]]\nprefix = "${registry.name}"\nlocation = "${registry.name}"\ninsecure = true\n`;
  await writeFile(join(containersDirectory, 'registries.conf'), location);
  const policy = { default: [{ type: 'insecureAcceptAnything' }] };
  await writeFile(join(containersDirectory, 'policy.json'), JSON.stringify(policy));
  const logs = join(work, 'logs');
  const peers = new Map<Contestant, CriPeer>();
  const common = { prepared, logs, signal, containersDirectory };
  const podvm = await openPodvm('podvm', { PODVM_SHIM_SOCKET: shimSocket }, common, undo);
  const cold = await openPodvm('cold', { PODVM_POOL: '0' }, common, undo);
  peers.set('podvm', podvm).set('cold', cold);
  const client = undo.use(connectTestClient(containerd.socket));
  const rest = () => delay(restMs);
  const directory = join(containerdWork, 'root');
  const daemonPid = containerd.pid;
  const [name, handler] = ['containerd', 'runc'] as const;
  peers.set(name, { name, client, handler, cgroupParent, daemonPid, directory, logs, signal, rest });
  const nameOnHost = (sandboxId: string) => sandboxOfPodvm(client, sandboxId);
  peers.set('shim', { ...peerOf(peers, 'podvm'), name: 'shim', client, handler: 'podvm', nameOnHost });
  for (const name of ['podvm', 'cold', 'containerd'] as const) {
    const peer = peerOf(peers, name);
    for (const image of [images.base, images.iperf]) await imagesOf(peer).pullImage({ image: { image } });
  }
  return {
    ...{ prepared, registry, containerd, images },
    roots: { podvm: podvm.directory, cold: cold.directory },
    peer: (name) => peerOf(peers, name),
    rest: (name) => peers.get(name)?.rest() ?? rest(),
    async startPodvm(owner) {
      const peer = await openPodvm('podvm', {}, common, owner);
      await imagesOf(peer).pullImage({ image: { image: images.base } });
      return peer;
    },
  };
}

function peerOf(peers: ReadonlyMap<Contestant, CriPeer>, name: Contestant): CriPeer {
  const peer = peers.get(name);
  if (peer === undefined) throw new Error(`${name} is not behind CRI`);
  return peer;
}

const pidSchema = v.object({ pid: v.number() });

/** The sandbox in podvm of a pod of containerd, whose pid is that of its VMM. */
async function sandboxOfPodvm(client: StreamingClient, podSandboxId: string): Promise<string> {
  const { info } = await client.of(RuntimeService).podSandboxStatus({ podSandboxId, verbose: true });
  const { pid } = v.parse(pidSchema, JSON.parse(info['info'] ?? ''));
  const [name] = /\bsb-[0-9a-f]+/.exec(await readFile(`/proc/${pid}/cmdline`, 'latin1')) ?? [];
  if (name === undefined) throw new Error(`process ${pid} is no VMM of podvm`);
  return name;
}

interface Common {
  readonly prepared: Prepared;
  readonly logs: string;
  readonly containersDirectory: string;
  readonly signal: AbortSignal;
}

/** Starts a daemon with defaults, except for its directories, its network and `env`. */
async function openPodvm(
  name: 'podvm' | 'cold',
  env: Readonly<Record<string, string>>,
  { prepared, logs, containersDirectory, signal }: Common,
  undo: AsyncDisposableStack,
): Promise<PodvmPeer> {
  const { podvm, programs, work, assetsRoot } = prepared;
  const node = undo.use(
    await startNode({
      podvm,
      crictl: programs.crictl,
      containersDirectory,
      assetsRoot,
      rootPrefix: join(work, `${name}-`),
      settings: { PODVM_CNI_CONFIG: join(work, 'containerd/net.d'), ...env },
      signal,
    }),
  );
  const client = undo.use(connectTestClient(join(node.root, 'cri.sock')));
  const rest = name === 'cold' ? () => delay(restMs) : () => untilPoolRests(node.root);
  const [handler, cgroupParent, directory] = ['', '', node.root];
  const log = () => node.log();
  return { name, client, handler, cgroupParent, daemonPid: node.pid, directory, logs, signal, rest, log };
}

/** Waits until machines wait, and their number no longer grows. */
async function untilPoolRests(root: string): Promise<void> {
  const client = createClient(join(root, 'podvm.sock'));
  const deadlineMs = performance.now() + restTimeoutMs;
  let [before, sinceMs] = [-1, performance.now()];
  for (;;) {
    const { waitingMachines } = await client.get('/v1/node', nodeDetailsSchema);
    const nowMs = performance.now();
    if (waitingMachines !== before) [before, sinceMs] = [waitingMachines, nowMs];
    if (waitingMachines > 0 && nowMs - sinceMs > steadyMs) return;
    if (nowMs > deadlineMs) throw new Error(`the pool does not come to rest: ${waitingMachines} machines wait`);
    await delay(pollMs);
  }
}

/** The bytes of each image are the same for all. */
async function pushImages({ layouts, work, programs }: Prepared, registry: Registry) {
  const pause = join(work, 'pause-layout');
  const layers = [[{ name: 'bin/sleep', content: await readFile(programs.busybox), mode: 0o755 }]];
  await writeLayout(pause, [{ layers, config: { config: { Cmd: ['/bin/sleep', '1000000'] } } }]);
  const references = { base: 'podvm/base:1', iperf: 'podvm/iperf:1', pause: 'podvm/pause:1' };
  await registry.push(layouts.base, references.base);
  await registry.push(layouts.iperf, references.iperf);
  await registry.push(pause, references.pause);
  const named = Object.entries(references).map(([key, reference]) => [key, `${registry.name}/${reference}`]);
  return Object.fromEntries(named) as typeof references; // SAFE: the same keys
}
