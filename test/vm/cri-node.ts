import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connectTestClient, type ClientOf } from '#cri/testing/grpc-client.ts';
import { ImageService, RuntimeService } from '#cri/schema/api_pb.ts';
import { tracesOf } from '../leaks.ts';
import { openCliNode, type CliNode } from './cli-node.ts';

/** A `podvm daemon` on a node of its own, and a kubelet's connection to it. */
export interface CriNode extends AsyncDisposable {
  readonly cli: CliNode;
  readonly runtime: ClientOf<typeof RuntimeService>;
  readonly images: ClientOf<typeof ImageService>;
  /** Ids of sandboxes made here. Disposing the node checks that no trace of them is left. */
  readonly ids: string[];
  /** Ends the daemon. `start` starts the next one, of this build or from `program`, and resolves when it serves. */
  end(how: 'SIGKILL' | 'SIGTERM'): Promise<void>;
  start(program?: string): Promise<void>;
  /** Process id of the daemon. */
  readonly pid: number;
  /** Output of the daemon. */
  log(): string;
}

/** Timeout of a start: another build makes its agent first, and an old one all its parts. */
const servingTimeoutMs = 900_000;

export interface CriNodeOptions {
  /** Takes CNI configurations from `net.d` of the node, empty at first; else it has its own network. */
  readonly hasCniDirectory?: boolean;
  readonly pool?: string;
  /** Program to run instead of the checkout's `podvm`. */
  readonly podvm?: string;
}

export async function openCriNode({
  hasCniDirectory = false,
  pool = '0',
  podvm,
}: CriNodeOptions = {}): Promise<CriNode> {
  const cli = await openCliNode({ isSetUp: true, pool, ...(podvm === undefined ? {} : { podvm }) });
  const cniDirectory = join(cli.root, 'net.d');
  const configuration = join(cli.root, 'podvm.yaml');
  if (hasCniDirectory) {
    await mkdir(cniDirectory);
    await writeFile(configuration, `cniConfig: ${cniDirectory}\n`);
  }
  const begin = async (program?: string) => {
    const daemon = cli.start(['daemon', ...(hasCniDirectory ? ['--config', configuration] : [])], '', program);
    await daemon.shows(/ info serving /, servingTimeoutMs);
    const client = connectTestClient(join(cli.root, 'cri.sock'));
    const [runtime, images] = [client.of(RuntimeService), client.of(ImageService)];
    return { daemon, client, runtime, images };
  };
  let now = await begin();
  const ids: string[] = [];
  const end = async (how: 'SIGKILL' | 'SIGTERM') => {
    now.client[Symbol.dispose]();
    now.daemon.child.kill(how);
    const { code } = await now.daemon.ended;
    if (how === 'SIGTERM') assert.equal(code, 0);
  };
  return {
    cli,
    get runtime() {
      return now.runtime;
    },
    get images() {
      return now.images;
    },
    ids,
    get pid() {
      return now.daemon.child.pid ?? 0;
    },
    end,
    start: async (program) => void (now = await begin(program)),
    log: () => now.daemon.stderr(),
    async [Symbol.asyncDispose]() {
      for (const { id } of (await now.runtime.listPodSandbox()).items) {
        await now.runtime.removePodSandbox({ podSandboxId: id }); // otherwise it outlives its daemon
      }
      await end('SIGTERM');
      assert.deepEqual(await tracesOf({ ids }), []);
      await cli[Symbol.asyncDispose]();
    },
  };
}

/** Starts a pod of one container, `main`, of the base image. Its log is what `log` names. */
export async function startPod(node: CriNode, name: string, script: string) {
  const config = {
    metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 },
    logDirectory: join(node.cli.root, 'pod-logs', name),
  };
  const { podSandboxId } = await node.runtime.runPodSandbox({ config });
  node.ids.push(podSandboxId);
  const { containerId } = await node.runtime.createContainer({
    podSandboxId,
    sandboxConfig: config,
    config: {
      metadata: { name: 'main' },
      image: { image: 'localhost/podvm/base:latest' },
      command: ['sh', '-c', script],
      logPath: 'main.log',
    },
  });
  await node.runtime.startContainer({ containerId });
  return { podSandboxId, containerId, config, log: join(config.logDirectory, 'main.log') };
}
