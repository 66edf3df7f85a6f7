import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, copyFile, mkdir, mkdtemp, open, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { kindOf, PodvmError } from '#base/errors.ts';
import { guestText, printable } from '#base/guest-text.ts';
import { run } from '#host/process/run.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { callersEnv } from './callers-env.ts';

/** A `podvm daemon` with a state directory of its own. */
export interface ConformanceNode extends AsyncDisposable {
  /** `unix:///...`. */
  readonly endpoint: string;
  readonly root: string;
  readonly pid: number;
  /** Returns its output so far. */
  log(): Promise<string>;
  /** Kills the daemon, and starts the next one of the program of another build, which answers when it resolves. */
  replace(program: string): Promise<void>;
  /** Descriptors that it has open. */
  descriptors(): Promise<number>;
}

export interface NodeOptions {
  /** Command of this repository. */
  readonly podvm: string;
  readonly crictl: string;
  readonly containersDirectory: string;
  /** State directory with what `podvm setup` made. */
  readonly assetsRoot: string;
  /** Further settings, as variables. */
  readonly settings: Readonly<Record<string, string>>;
  /** Prefix of the path of its state directory. */
  readonly rootPrefix?: string;
  readonly signal: AbortSignal;
}

/** Time in which a daemon answers, in `ms`: one of another build makes its agent before. */
const readyTimeoutMs = 300_000;
const endTimeoutMs = 120_000;
const pollMs = 200;

/**
 * Starts a daemon and waits until it answers. At its end its pods are drained, and its directory is removed.
 * Errors: `failedPrecondition` when it ends at once, `timeout`; with its last lines.
 */
export async function startNode(options: NodeOptions): Promise<ConformanceNode> {
  await using undo = new AsyncDisposableStack();
  const root = await mkdtemp(options.rootPrefix ?? '/var/tmp/podvm-conformance-');
  undo.defer(() => rm(root, { recursive: true, force: true }));
  undo.defer(() => removeDefaultNetwork(join(root, 'network'), AbortSignal.timeout(endTimeoutMs)));
  await chmod(root, 0o711); // VMMs run as users of their own
  for (const known of ['assets/current.json', 'probe/accelerator.json']) {
    await mkdir(dirname(join(root, known)), { mode: 0o711 });
    await copyFile(join(options.assetsRoot, known), join(root, known));
  }
  await mkdir(join(root, 'parts'), { mode: 0o711 });
  for (const part of await readdir(join(options.assetsRoot, 'parts'))) {
    await symlink(join(options.assetsRoot, 'parts', part), join(root, 'parts', part));
  }
  const logFile = join(root, 'daemon.log');
  const log = async () => await readFile(logFile, 'utf8');
  const env = callersEnv({ ...options.settings, PODVM_ROOT: root, PODVM_CONTAINERS: options.containersDirectory });
  const endpoint = `unix://${join(root, 'cri.sock')}`;
  let daemon: Awaited<ReturnType<typeof spawnDaemon>> | undefined;
  undo.defer(async () => {
    if (daemon === undefined) return;
    const { child, ended } = daemon;
    if (child.exitCode === null) await run(options.podvm, ['drain', '--grace', '0'], { env });
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), endTimeoutMs);
    await ended;
    clearTimeout(late);
  });
  const begin = async (program: string) => {
    daemon = await spawnDaemon(program, env, logFile);
    const { child } = daemon;
    const give = AbortSignal.any([options.signal, AbortSignal.timeout(readyTimeoutMs)]);
    while (!(await answers(options.crictl, endpoint, give))) {
      const tail = (await log()).trimEnd().split('\n').slice(-8).map(guestText);
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new PodvmError(
          'failedPrecondition',
          `Cannot test podvm daemon: it ended: ${printable(tail.at(-1) ?? '')}`,
          { tail },
        );
      }
      if (give.aborted) throw new PodvmError('timeout', 'Cannot test podvm daemon: it does not answer', { tail });
      await delay(pollMs);
    }
    return daemon;
  };
  let now = await begin(options.podvm);
  const owned = undo.move();
  return {
    endpoint,
    root,
    get pid() {
      return now.child.pid ?? 0;
    },
    log,
    async replace(program) {
      now.child.kill('SIGKILL');
      await now.ended;
      now = await begin(program);
    },
    descriptors: async () => (await readdir(`/proc/${now.child.pid}/fd`)).length,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function spawnDaemon(podvm: string, env: NodeJS.ProcessEnv, logFile: string) {
  const output = await open(logFile, 'a');
  // In a session of its own: Ctrl-C ends the test, which has its pods drained before.
  const child = spawn(podvm, ['daemon'], { detached: true, stdio: ['ignore', output.fd, output.fd], env });
  const ended = once(child, 'exit');
  await output.close();
  return { child, ended };
}

async function answers(crictl: string, endpoint: string, signal: AbortSignal): Promise<boolean> {
  try {
    await run(crictl, ['--runtime-endpoint', endpoint, '--config', '/dev/null', 'version'], { signal });
    return true;
  } catch (error) {
    if (kindOf(error) === 'internal' || kindOf(error) === 'cancelled') return false;
    throw error;
  }
}
