import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';
import { ImageService, PodSandboxState, RuntimeService } from '#cri/schema/api_pb.ts';
import { connectTestClient } from '#cri/testing/grpc-client.ts';
import { run } from '#host/process/run.ts';
import { logLines } from '../../test/log-lines.ts';
import { type CliNode, openCliNode } from '../../test/vm/cli-node.ts';
import type { Checking } from './checking.ts';
import type { Release } from './release.ts';
import { makeSecondState } from './second-state.ts';
import { environmentOf, shell } from './try-form.ts';

const timeoutMs = 30 * 60_000;
const servingTimeoutMs = 300_000;
const goesOnTimeoutMs = 120_000;
const image = { image: 'localhost/podvm/base:latest' };

/** Files of a release, made from one commit. */
interface Made {
  readonly npmPackage: string;
  readonly bundle: string;
}
const madeIn = (dist: string, version: string): Made => ({
  npmPackage: join(dist, `podvm-${version}.tgz`),
  bundle: join(dist, `podvm-${version}.bundle`),
});

/**
 * Installs the npm package of an older commit, starts a pod as a kubelet would, installs this one over it, then the older
 * one again. Each time the running daemon is replaced, and the pod must go on in the same machine without a lost line.
 */
export async function checkUpgrade({ release, dist, work, older: commit }: Checking): Promise<void> {
  const older = await makeOlder(release, commit, work);
  const newer = madeIn(dist, release.version);
  const env = environmentOf({ npm_config_prefix: join(work, 'npm'), npm_config_cache: join(work, 'npm-cache') });
  const podvm = join(work, 'npm/bin/podvm');
  await using cli = await openCliNode({ isSetUp: false, podvm });
  const install = async ({ npmPackage, bundle }: Made) => {
    await shell([`npm install --global --no-audit --no-fund ${npmPackage}`], env);
    const ended = await cli.type(['setup', '--from', bundle]);
    assert.equal(ended.code, 0, ended.stderr);
  };
  await install(older);
  await using node = await openNode(cli);
  const pods = [await node.startPod('first')];
  await node.goOn(pods);
  for (const [made, signal] of [
    [newer, 'SIGTERM'],
    [older, 'SIGKILL'],
    [newer, 'SIGTERM'],
  ] as const) {
    await install(made);
    await node.goOn(pods);
    await node.replaceDaemon(signal);
    await node.goOn(pods);
    pods.push(await node.startPod(`pod-${pods.length}`));
    await node.goOn(pods);
  }
}

/** Makes the release of another commit, by its own tools. */
async function makeOlder({ repo, root, signal }: Release, commit: string, work: string): Promise<Made> {
  const [tree, state] = [join(work, 'older'), join(work, 'older-state')];
  await run('git', ['clone', '--quiet', '--shared', repo, tree], { signal, timeoutMs });
  await run('git', ['-C', tree, 'checkout', '--quiet', commit], { signal, timeoutMs }).catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot try an upgrade: this repository has no commit ${commit}`, {
      cause,
      fix: 'Fetch it, or name another with `--older COMMIT`.',
    });
  });
  await makeSecondState(root, state, signal);
  const env = environmentOf({ PODVM_ROOT: state, PODVM_BACKGROUND: 'off', PODVM_TEMPLATE: 'off' });
  await run(join(tree, 'podvm'), ['setup'], { env, signal, timeoutMs });
  const words = [join(tree, 'tools/release/main.ts')];
  await run(join(tree, 'node_modules/.bin/node'), words, { cwd: tree, env, signal, timeoutMs });
  const { version } = JSON.parse(await readFile(join(tree, 'package.json'), 'utf8')) as { version: string }; // SAFE: our own file
  return madeIn(join(tree, 'dist'), version);
}

/** A pod that counts into its log. */
interface CountingPod {
  readonly podSandboxId: string;
  readonly containerId: string;
  readonly log: string;
  /** Process id of its machine. */
  readonly pid: number;
}

interface Node extends AsyncDisposable {
  startPod(name: string): Promise<CountingPod>;
  /** Asserts that each pod runs in its first machine, goes on counting, has lost no line, and can be entered. */
  goOn(pods: readonly CountingPod[]): Promise<void>;
  /** Ends the daemon, and starts the installed one. */
  replaceDaemon(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}

async function openNode(cli: CliNode): Promise<Node> {
  const begin = async () => {
    const daemon = cli.start(['daemon']);
    await daemon.shows(/ info serving /, servingTimeoutMs);
    const client = connectTestClient(join(cli.root, 'cri.sock'));
    return { daemon, client, runtime: client.of(RuntimeService), images: client.of(ImageService) };
  };
  let now = await begin();
  const end = async (signal: 'SIGTERM' | 'SIGKILL') => {
    now.client[Symbol.dispose]();
    now.daemon.child.kill(signal);
    await now.daemon.ended;
  };
  const machineOf = async (podSandboxId: string) => {
    const { info, status } = await now.runtime.podSandboxStatus({ podSandboxId, verbose: true });
    const { pid } = JSON.parse(info['info'] ?? '') as { pid: number }; // SAFE: an answer of the daemon under test, which the assertions check
    return { pid, state: status?.state };
  };
  return {
    async startPod(name) {
      const logDirectory = join(cli.root, 'pod-logs', name);
      await mkdir(logDirectory, { recursive: true });
      const config = { metadata: { name, namespace: 'default', uid: `uid-of-${name}`, attempt: 0 }, logDirectory };
      const { podSandboxId } = await now.runtime.runPodSandbox({ config });
      const { containerId } = await now.runtime.createContainer({
        podSandboxId,
        sandboxConfig: config,
        config: {
          metadata: { name: 'main' },
          image,
          command: ['sh', '-c', 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done'],
          logPath: 'main.log',
        },
      });
      await now.runtime.startContainer({ containerId });
      const { pid } = await machineOf(podSandboxId);
      return { podSandboxId, containerId, log: join(logDirectory, 'main.log'), pid };
    },
    async goOn(pods) {
      for (const { podSandboxId, containerId, log, pid } of pods) {
        assert.deepEqual(await machineOf(podSandboxId), { pid, state: PodSandboxState.SANDBOX_READY });
        const numbers = async () => (await logLines(log)).map(Number);
        const seen = (await numbers()).length;
        const giveUpMs = Date.now() + goesOnTimeoutMs;
        while ((await numbers()).length < seen + 5) {
          assert.ok(Date.now() < giveUpMs, `no more lines in ${log}`);
          await delay(100);
        }
        const lost = (await numbers()).filter((number, index) => number !== index + 1);
        assert.deepEqual(lost, []);
        const { stdout } = await now.runtime.execSync({ containerId, cmd: ['echo', 'here'], timeout: 60n });
        assert.equal(Buffer.from(stdout).toString(), 'here\n');
      }
    },
    async replaceDaemon(signal) {
      await end(signal);
      now = await begin();
    },
    async [Symbol.asyncDispose]() {
      for (const { id } of (await now.runtime.listPodSandbox()).items) {
        await now.runtime.removePodSandbox({ podSandboxId: id }); // otherwise it outlives its daemon
      }
      await end('SIGTERM');
    },
  };
}
