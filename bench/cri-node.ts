import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ClientOf, connectTestClient } from '#cri/testing/grpc-client.ts';
import { RuntimeService } from '#cri/schema/api_pb.ts';
import { environment, nodeRoot, podvm } from './node.ts';

/** Socket other than that of a daemon that may serve this machine. */
const criSocket = join(nodeRoot, 'cri.sock');
const readyTimeoutMs = 120_000;
const maxLogChars = 1_000_000;

/** A `podvm daemon`, with a kubelet's connection to it. */
export interface CriNode extends AsyncDisposable {
  readonly runtime: ClientOf<typeof RuntimeService>;
  readonly pid: number;
  /** Resident memory of the daemon, and its parts (proc(5)). */
  memory(): Promise<{ readonly residentKiB: number; readonly anonymousKiB: number; readonly fileKiB: number }>;
  /** Kills the daemon and starts the next one. Resolves when that serves, to its log so far. */
  replace(): Promise<string>;
}

/**
 * Starts a daemon with the default pool, or another, and further settings; `program`: of a release, default: the checkout.
 * `PODVM_CPU_PROFILE`: directory for its processor profile.
 */
export async function openCriNode(
  poolSize: number | undefined,
  settings: Readonly<Record<string, string>> = {},
  program = podvm,
): Promise<CriNode> {
  const profile = process.env['PODVM_CPU_PROFILE'];
  const env = environment({
    PODVM_CRI_SOCKET: criSocket,
    ...settings,
    ...(poolSize === undefined ? {} : { PODVM_POOL: String(poolSize) }),
    ...(profile === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` }),
  });
  let daemon = await startDaemon(program, env);
  const end = async (signal: 'SIGTERM' | 'SIGKILL') => {
    daemon.client[Symbol.dispose]();
    daemon.child.kill(signal);
    await daemon.ended;
  };
  const removeAll = async () => {
    const runtime = daemon.client.of(RuntimeService);
    const { items } = await runtime.listPodSandbox();
    for (const { id } of items) await runtime.removePodSandbox({ podSandboxId: id });
  };
  await removeAll(); // pods of a failed benchmark outlive their daemon
  return {
    get runtime() {
      return daemon.client.of(RuntimeService);
    },
    get pid() {
      return daemon.child.pid ?? 0;
    },
    async memory() {
      const status = await readFile(`/proc/${daemon.child.pid}/status`, 'latin1');
      const kib = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
      return { residentKiB: kib('VmRSS'), anonymousKiB: kib('RssAnon'), fileKiB: kib('RssFile') };
    },
    async replace() {
      await end('SIGKILL');
      daemon = await startDaemon(program, env);
      return daemon.log();
    },
    async [Symbol.asyncDispose]() {
      await removeAll();
      await end('SIGTERM');
    },
  };
}

async function startDaemon(program: string, env: Record<string, string>) {
  const child = spawn(program, ['daemon'], { stdio: ['ignore', 'ignore', 'pipe'], env });
  const ended = once(child, 'close');
  let said = '';
  const serving = Promise.withResolvers<void>();
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-maxLogChars);
    if (said.includes(' info serving cri=')) serving.resolve();
  });
  void ended.then(() => serving.reject(new Error(`podvm daemon ended: ${said}`)));
  AbortSignal.timeout(readyTimeoutMs).addEventListener('abort', () => serving.reject(new Error(`not ready: ${said}`)));
  await serving.promise;
  return { child, ended, client: connectTestClient(criSocket), log: () => said };
}
