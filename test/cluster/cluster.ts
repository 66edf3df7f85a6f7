import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { run } from '#host/process/run.ts';
import { buildContainerd } from '../containerd/build-containerd.ts';
import { buildCriTools } from '../conformance/cri-tools.ts';
import { DebianFiles } from '../conformance/debian-files.ts';
import type { AddOns } from './build-add-ons.ts';
import type { NodeConformance } from './build-node-conformance.ts';
import { buildCoreDns, programs as kubernetesPrograms } from './build-kubernetes.ts';
import { packages, serveImages } from './cluster-images.ts';
import { startControlPlane } from './control-plane.ts';
import { Kubectl } from './kubectl.ts';
import { ClusterNode, type NodeOptions, type Service } from './node-namespaces.ts';
import { makeNodeImage, setUpRoot } from './node-image.ts';
import {
  containerdSocket,
  installedPodvm,
  podvm,
  podvmSocket,
  startContainerd,
  startKubelet,
  startPodvm,
  write,
  writeNetwork,
} from './worker.ts';

/** Programs and files from which the cluster is made. */
export interface Built {
  readonly kubernetes: string;
  readonly coredns: string;
  /** Programs that a node has in its PATH. */
  readonly programs: readonly string[];
  readonly suite: DebianFiles;
  readonly debian: DebianFiles;
  /** Those of the suite `add-ons`. */
  readonly addOns: AddOns | undefined;
  /** Those of the suite `node-conformance`. */
  readonly tests: NodeConformance | undefined;
}

export async function buildAll(
  cache: string,
  kubernetes: string,
  ofSuite: Pick<Built, 'addOns' | 'tests'>,
  signal: AbortSignal,
): Promise<Built> {
  const coredns = await buildCoreDns(cache, signal);
  const { crictl } = await buildCriTools(cache, signal);
  const { containerd, ctr, runc } = await buildContainerd(cache, signal);
  const debian = await DebianFiles.unpack(cache, signal, packages);
  const programs = [
    ...kubernetesPrograms.map((name) => join(kubernetes, name)),
    ...[
      crictl,
      containerd,
      ctr,
      runc,
      join(containerd, '../containerd-shim-runc-v2'),
      join(debian.root, 'usr/bin/etcd'),
    ],
  ];
  return { kubernetes, coredns, programs, suite: await DebianFiles.unpack(cache, signal), debian, ...ofSuite };
}

/** A node and its programs. */
export interface Worker extends AsyncDisposable {
  readonly node: ClusterNode;
  readonly podvm: Service;
  readonly containerd: Service;
  readonly kubelet: Service;
}

/** A control plane without workers, whose nodes have namespaces, programs and images. */
export interface Cluster extends AsyncDisposable {
  readonly kubectl: Kubectl;
  readonly nodes: readonly [ClusterNode, ClusterNode];
  readonly work: string;
}

const manifests = join(import.meta.dirname, 'manifests');
const setUpTimeoutMs = 600_000;

/** Text of a manifest, with these words in place of `$NAME`. */
export async function manifest(name: string, words: Readonly<Record<string, string>> = {}): Promise<string> {
  const text = await readFile(join(manifests, name), 'utf8');
  return text.replaceAll(/\$([A-Z]+)\b/g, (found, word: string) => words[word] ?? found);
}

/** Nodes, images and control plane; gone after disposal. `hasSystemd`: of all nodes. */
export async function startCluster(built: Built, { hasSystemd }: Pick<NodeOptions, 'hasSystemd'>): Promise<Cluster> {
  await using undo = new AsyncDisposableStack();
  const work = await mkdtemp('/var/tmp/podvm-cluster-');
  undo.defer(() => rm(work, { recursive: true, force: true }));
  await chmod(work, 0o711); // VMMs run as users of their own
  const start = async (name: string, address: string) =>
    undo.use(await ClusterNode.start({ name, address, work: join(work, name), hasSystemd }));
  const nodes = [await start('node1', '10.99.0.1'), await start('node2', '10.99.0.2')] as const;
  await connect(nodes);
  for (const node of nodes) {
    for (const program of built.programs) await node.run('ln', ['-s', program, `/usr/local/bin/${basename(program)}`]);
    await write(node, '/etc/resolv.conf', '');
    await writeNetwork(node, podSubnet(node));
  }
  const nodeImage = await makeNodeImage(join(work, 'release'));
  await serveImages(nodes[0], nodes, { ...built, nodeImage });
  await startControlPlane(nodes[0], nodes, join(work, 'kubernetes'));
  const owned = undo.move();
  return { kubectl: new Kubectl(nodes[0]), nodes, work, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const podSubnet = ({ address }: ClusterNode): string => `10.244.${address.split('.').at(-1)}.0/24`;

/** Connects two nodes by a cable, and adds a route on each to the pods of the other. */
async function connect([first, second]: readonly [ClusterNode, ClusterNode]): Promise<void> {
  const inFirst = ['--target', String(first.pid), '--net', 'ip', 'link', 'add', 'uplink', 'type', 'veth'];
  await run('nsenter', [...inFirst, 'peer', 'name', 'uplink', 'netns', String(second.pid)]);
  for (const [node, other] of [
    [first, second],
    [second, first],
  ] as const) {
    await node.run('ip', ['address', 'add', `${node.address}/24`, 'dev', 'uplink']);
    await node.run('ip', ['link', 'set', 'uplink', 'up']);
    await node.run('ip', ['route', 'add', podSubnet(other), 'via', other.address]);
    // Addresses of services need a route, before a rule translates them.
    await node.run('ip', ['route', 'add', 'default', 'dev', 'uplink']);
  }
}

/** A worker whose kubelet uses podvm, with a containerd beside it as delegate. `more`: settings of podvm. */
export async function startPodvmWorker(node: ClusterNode, more: object = {}): Promise<Worker> {
  await setUp(node);
  const containerd = await startContainerd(node);
  const settings = { delegate: `unix://${containerdSocket}`, pool: 1, ...more };
  const daemon = await startPodvm(node, settings);
  return await joinCluster(node, podvmSocket, { containerd, podvm: daemon });
}

/** A worker whose kubelet uses a containerd with runc. Podvm does not run until it is installed and begun. */
export async function startContainerdWorker(node: ClusterNode): Promise<Worker> {
  const containerd = await startContainerd(node);
  return await joinCluster(node, containerdSocket, { containerd, podvm: installedPodvm(node) });
}

/** Set-up finds the parts that the checkout has already. A template that is linked is one that was touched: not these. */
async function setUp(node: ClusterNode): Promise<void> {
  for (const part of ['parts', 'probe']) {
    await run('cp', ['--archive', '--link', join(setUpRoot, part), join(node.work, 'lib/podvm')]);
  }
  await node.run(podvm, ['setup'], { timeoutMs: setUpTimeoutMs });
}

/** Starts a kubelet on the runtime at `socket`. Disposal ends the pods, and removes what podvm has added to the node. */
async function joinCluster(
  node: ClusterNode,
  socket: string,
  { containerd, podvm: daemon }: Pick<Worker, 'containerd' | 'podvm'>,
): Promise<Worker> {
  const kubelet = await startKubelet(node, socket);
  let ending: Promise<void> | undefined;
  const end = async () => {
    await kubelet.end('SIGTERM');
    const argv = ['--config', '/dev/null', '-t', '60s', '-r', `unix://${socket}`, 'rmp', '--force', '--all'];
    await node.run('crictl', argv, { okCodes: 'any', timeoutMs: 300_000 });
    if (await daemon.isRunning()) {
      await node.run(podvm, ['drain', '--grace', '0'], { okCodes: 'any', timeoutMs: 120_000 });
      await daemon.end('SIGTERM');
    }
    await node.run(podvm, ['uninstall'], { timeoutMs: 120_000 });
    await containerd.end('SIGTERM');
  };
  return { node, containerd, podvm: daemon, kubelet, [Symbol.asyncDispose]: () => (ending ??= end()) };
}
