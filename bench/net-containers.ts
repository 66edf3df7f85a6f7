import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf } from '#base/errors.ts';
import { run } from '#host/run.ts';
import { addChain, deleteChain, type ChainCall } from '#network/cni/cni-chain.ts';
import { defaultPluginDirs } from '#network/host-network.ts';
import { capabilitiesOf, writeConfig } from './bundle.ts';
import { crunCommands, firstWorking, type CrunCommand } from './peers.ts';

/** Two containers of crun as other runtimes would have them: the same image, the same CNI plugin, a netns each. */
const bridge = 'pvbench0';
const subnet = '10.221.0.0/24';
const signal = () => AbortSignal.timeout(60_000);

/** Two places on a network of this host, and how to run a program in the second; pods, or containers. */
export interface Pair {
  /** Of the one that serves. */
  readonly address: string;
  /** Runs a program in the other one, and gives what it prints. */
  inOther(command: readonly string[]): Promise<string>;
}

/** The pair, or why there is none. Disposing takes all of it away. */
export async function openContainers(layout: string): Promise<(Pair & AsyncDisposable) | string> {
  await using undo = new AsyncDisposableStack();
  try {
    const directory = await mkdtemp('/var/tmp/podvm-bench-crun-');
    undo.defer(() => rm(directory, { recursive: true }));
    const rootfs = join(directory, 'rootfs');
    await unpack(layout, rootfs);
    undo.defer(async () => void (await run('ip', ['link', 'delete', bridge], { okCodes: [0, 1] })));
    const address = await connect(directory, 1, undo);
    await connect(directory, 2, undo);
    const runTrue = async (command: CrunCommand) => await runIn(command, await bundleOf(directory, 2, ['true']));
    const command = await firstWorking(crunCommands, runTrue);
    undo.use(await serve(command, await bundleOf(directory, 1, ['iperf3', '--server'])));
    const owned = undo.move();
    return {
      address,
      inOther: async (args) => await runIn(command, await bundleOf(directory, 2, args)),
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    };
  } catch (error) {
    return messageOf(error);
  }
}

const indexSchema = v.object({ manifests: v.array(v.object({ digest: v.string() })) });
const manifestSchema = v.object({ layers: v.array(v.object({ digest: v.string() })) });

/** Of an image that we made ourselves: its layers are no stranger's. */
async function unpack(layout: string, rootfs: string): Promise<void> {
  await mkdir(rootfs);
  const blob = (digest = '') => join(layout, 'blobs', digest.replace(':', '/'));
  const index = v.parse(indexSchema, JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')));
  const manifest = v.parse(manifestSchema, JSON.parse(await readFile(blob(index.manifests[0]?.digest), 'utf8')));
  for (const { digest } of manifest.layers) {
    await run('tar', ['-xzf', blob(digest), '-C', rootfs, '--exclude=./dev/*'], { timeoutMs: 120_000 });
  }
}

const netnsOf = (number: number) => `pvbench-${process.pid}-${number}`;

/** The same bridge plugin as pods are connected by, with the same options; gives the address. */
async function connect(directory: string, number: number, undo: AsyncDisposableStack): Promise<string> {
  const name = netnsOf(number);
  await run('ip', ['netns', 'add', name]);
  undo.defer(async () => void (await run('ip', ['netns', 'delete', name])));
  await run('ip', ['-netns', name, 'link', 'set', 'lo', 'up']);
  const ipam = { type: 'host-local', dataDir: join(directory, 'ipam'), ranges: [[{ subnet }]] };
  const plugin = { type: 'bridge', bridge, isDefaultGateway: true, hairpinMode: true, mtu: 1500, ipam };
  const call: ChainCall = {
    conflist: { cniVersion: '1.0.0', name: 'pvbench', plugins: [plugin] },
    containerId: name,
    netns: `/run/netns/${name}`,
    ifName: 'eth0',
    args: {},
    capabilities: {},
    pluginDirs: defaultPluginDirs,
    timeoutMs: 30_000,
  };
  const added = await addChain(call, signal());
  undo.defer(() => deleteChain(call, added, signal()));
  return added.ips?.[0]?.address.split('/')[0] ?? '';
}

let bundles = 0;

/** A directory with a config of its own and the common root. */
async function bundleOf(directory: string, number: number, args: readonly string[]): Promise<string> {
  const bundle = join(directory, `bundle-${(bundles += 1)}`);
  await mkdir(bundle);
  await writeConfig(bundle, {
    args,
    process: capabilitiesOf(['CAP_NET_RAW']),
    mounts: [{ destination: '/tmp', type: 'tmpfs', source: 'tmpfs' }],
    rootfs: join(directory, 'rootfs'),
    netns: `/run/netns/${netnsOf(number)}`,
  });
  return bundle;
}

async function runIn(command: CrunCommand, bundle: string): Promise<string> {
  const [program = '', ...args] = command(bundle, `pvbench-${process.pid}-${bundles}`);
  return (await run(program, args)).stdout;
}

async function serve(command: CrunCommand, bundle: string): Promise<AsyncDisposable> {
  const id = `pvbench-${process.pid}-${bundles}`;
  const [program = '', ...args] = command(bundle, id);
  const child = spawn(program, args, { stdio: 'ignore' });
  const exited = once(child, 'exit');
  return {
    [Symbol.asyncDispose]: async () => {
      // The container's processes are known by its network namespace; crun ends with the first of them.
      const { stdout } = await run('ip', ['netns', 'pids', netnsOf(1)]);
      for (const pid of stdout.split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL');
      await exited;
    },
  };
}
