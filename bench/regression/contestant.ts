import { once } from 'node:events';
import { chmod, cp, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { createClient } from '#cli/client.ts';
import { NamespaceMode, RuntimeService } from '#cri/schema/api_pb.ts';
import { connectTestClient } from '#cri/testing/grpc-client.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { startChild } from '#host/process/start-child.ts';
import { poll } from '#host/wait.ts';
import { callersEnv } from '../../test/conformance/callers-env.ts';
import { familyCpuMs } from '../../test/family-cpu.ts';
import { memoryOf, nodeRoot, processesOf } from '../node.ts';

const readyTimeoutMs = 300_000;
const maxLogChars = 64 * 1024;
const execs = 20;
const image = { image: 'localhost/podvm/base:latest' };

/** A running pod and its cost so far. */
export interface MeasuredPod extends AsyncDisposable {
  /** Processor time of the host from the first call until a command has run in it, in `ms`. */
  readonly startMs: number;
  /** Processor time of the host for one command, in `ms`. */
  readonly execMs: number;
  /**
   * Memory of its machine on the host that no other process shares, in `KiB`. What it shares are pages of files, which
   * count more the fewer machines run, and go when the host needs memory.
   */
  privateKiB(): Promise<number>;
}

/** A node of one build with a state directory of its own. */
export interface Contestant extends AsyncDisposable {
  start(name: string): Promise<MeasuredPod>;
}

/** Opens a node without waiting machines. Resolves when its template is made. */
export async function openContestant(program: string, signal: AbortSignal): Promise<Contestant> {
  await using undo = new AsyncDisposableStack();
  const root = await mkdtemp('/var/tmp/podvm-pair-');
  undo.defer(() => rm(root, { recursive: true, force: true }));
  await chmod(root, 0o711); // jailed machines reach their files in it
  undo.defer(() => removeDefaultNetwork(join(root, 'network'), AbortSignal.timeout(30_000)));
  const env = {
    ...neutralEnv(),
    PODVM_ROOT: root,
    PODVM_POOL: '0',
    PODVM_BACKGROUND: 'off',
    NODE_COMPILE_CACHE: join(root, 'compile-cache'), // the checkout's would be full, and the base's empty
    PODVM_MIRROR: 'file:///dev/null', // of which nothing can be downloaded: its set-up makes parts of the ones it is lent
  };
  await lendParts(root);
  await run(program, ['setup'], { env, timeoutMs: readyTimeoutMs, signal });
  const daemon = await startChild(program, ['daemon'], { stdio: ['ignore', 'ignore', 'pipe'], env });
  const ended = once(daemon, 'exit');
  undo.defer(async () => {
    daemon.kill('SIGTERM');
    await ended;
  });
  let said = '';
  daemon.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-maxLogChars)));
  const admin = createClient(join(root, 'podvm.sock'));
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(readyTimeoutMs)]);
  const isReady = async () => {
    if (daemon.exitCode !== null) throw new Error(`podvm daemon ended: ${said}`);
    const metrics = await admin.stream('GET', '/metrics').then(text, () => '');
    return metrics.includes('\npodvm_template_created_timestamp_seconds ') ? true : undefined;
  };
  if ((await poll(isReady, { everyMs: 500, signal: deadline })) === undefined) {
    signal.throwIfAborted();
    throw new Error(`podvm daemon is not ready after ${readyTimeoutMs / 1000} s: ${said}`);
  }
  const client = undo.use(connectTestClient(join(root, 'cri.sock')));
  const runtime = client.of(RuntimeService);
  const cpuMs = () => familyCpuMs(daemon.pid ?? 0);
  const owned = undo.move();
  return {
    async start(name): Promise<MeasuredPod> {
      const sandboxConfig = {
        metadata: { name, namespace: 'bench', uid: `uid-${name}`, attempt: 0 },
        linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } } }, // as a kubelet
      };
      const config = { metadata: { name: 'main' }, image, command: ['sleep', '100000'] };
      const before = await cpuMs();
      const { podSandboxId } = await runtime.runPodSandbox({ config: sandboxConfig });
      await using undoStart = new AsyncDisposableStack();
      undoStart.defer(async () => void (await runtime.removePodSandbox({ podSandboxId }))); // it would outlive the node
      const { containerId } = await runtime.createContainer({ podSandboxId, config, sandboxConfig });
      await runtime.startContainer({ containerId });
      const exec = async () => {
        const { exitCode, stderr } = await runtime.execSync({ containerId, cmd: ['true'], timeout: 120n });
        if (exitCode !== 0)
          throw new Error(`exec in ${name} ended with ${exitCode}: ${Buffer.from(stderr).toString()}`);
      };
      await exec();
      const started = await cpuMs();
      for (let count = 0; count < execs; count += 1) await exec();
      const executed = await cpuMs();
      const pod = undoStart.move();
      return {
        startMs: started - before,
        execMs: (executed - started) / execs,
        async privateKiB() {
          const { anonymousKiB } = await memoryOf(await processesOf(podSandboxId));
          if (anonymousKiB === 0) throw new Error(`the machine of ${name} is gone`);
          return anonymousKiB;
        },
        [Symbol.asyncDispose]: () => pod.disposeAsync(),
      };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Lends it what set-up has made already: it makes only what its sources change. The template is its own. */
async function lendParts(root: string): Promise<void> {
  if (!(await isThere(join(nodeRoot, 'parts')))) return;
  for (const name of ['assets', 'probe']) await cp(join(nodeRoot, name), join(root, name), { recursive: true });
  await mkdir(join(root, 'parts'), { mode: 0o711 });
  for (const name of await readdir(join(nodeRoot, 'parts')))
    await symlink(join(nodeRoot, 'parts', name), join(root, 'parts', name));
}

/** The environment of this process without settings of podvm, which must be the same for both. */
function neutralEnv(): Record<string, string> {
  return Object.fromEntries(Object.entries(callersEnv()).filter(([key]) => !key.startsWith('PODVM_')));
}
