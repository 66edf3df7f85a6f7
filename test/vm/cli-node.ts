import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { findOrphans } from '#sandbox/recovery/orphans.ts';
import { readCurrent } from '#setup/setup.ts';

export const repo = join(import.meta.dirname, '../..');
/** Time for a program that was left running to end after a signal, in `ms`. */
const politeMs = 5000;
const setUpRoot = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';

/** A `./podvm` command line that runs. */
export interface Typed {
  readonly child: ChildProcessWithoutNullStreams;
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly ended: Promise<Ended>;
  /** Resolves when standard output or standard error matches; rejects after the deadline (a minute), or when the program ends before. */
  shows(pattern: RegExp, withinMs?: number): Promise<void>;
}

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A state directory of a test, which runs `./podvm ...` with it. */
export interface CliNode extends AsyncDisposable {
  readonly root: string;
  /** `program`: path of another build's program. */
  start(args: readonly string[], input?: string, program?: string): Typed;
  type(args: readonly string[], input?: string): Promise<Ended>;
}

export interface CliNodeOptions {
  readonly isSetUp: boolean;
  readonly podvm?: string;
  readonly pool?: string;
  /** Commands start a node in the background, which this test has to end. Default: each serves itself. */
  readonly startsNode?: boolean;
  /** The setting, for a node of root that others use. */
  readonly socketGroup?: string;
}

/**
 * With set-up, it shares the result of `podvm setup` by links to each part and template, so that the test changes only
 * its own directory. The environment is a user's, plus the state directory. `podvm`: a program instead of the
 * checkout's. `pool`: the setting; by default no machine waits, since that would take processor time from the test.
 */
export async function openCliNode({
  isSetUp,
  podvm,
  pool = '0',
  startsNode = false,
  socketGroup,
}: CliNodeOptions): Promise<CliNode> {
  const root = await mkdtemp('/var/tmp/podvm-cli-');
  await chmod(root, 0o711); // jailed machines reach their files in it
  if (isSetUp) {
    await cp(join(setUpRoot, 'assets'), join(root, 'assets'), { recursive: true });
    for (const shared of ['parts', 'templates']) {
      await mkdir(join(root, shared), { mode: 0o711 });
      for (const entry of await readdir(join(setUpRoot, shared))) {
        await symlink(join(setUpRoot, shared, entry), join(root, shared, entry));
      }
    }
    await cp(join(setUpRoot, 'probe/accelerator.json'), join(root, 'probe/accelerator.json'));
  }
  const running = new Set<Typed>();
  const start = (args: readonly string[], input = '', program = podvm ?? join(repo, 'podvm')) => {
    const group = socketGroup === undefined ? {} : { PODVM_SOCKET_GROUP: socketGroup };
    const env = { PODVM_ROOT: root, PODVM_POOL: pool, PODVM_BACKGROUND: startsNode ? 'on' : 'off', ...group };
    const typed = startPodvm(program, env, args, input);
    running.add(typed);
    void typed.ended.finally(() => running.delete(typed));
    return typed;
  };
  return {
    root,
    start,
    type: async (args, input) => await start(args, input).ended,
    async [Symbol.asyncDispose]() {
      // Clients first: the pod of a client that lives longer than its daemon stays for the next one.
      for (const isDaemon of [false, true])
        await endAll([...running].filter(({ child }) => child.spawnargs.includes('daemon') === isDaemon));
      const left = await findOrphans(root);
      if (left.length > 0) await start(['stop', '--orphaned']).ended;
      await removeDefaultNetwork(join(root, 'network'), AbortSignal.timeout(30_000));
      await rm(root, { recursive: true, force: true });
      assert.deepEqual(left, [], 'the test has left machines');
    },
  };
}

/** Gives the state directory parts as if its own set-up had made them. */
export async function ownParts({ root }: CliNode): Promise<void> {
  const file = join(root, 'assets/current.json');
  const text = await readFile(file, 'utf8');
  const { sysroot } = (await readCurrent(root)) ?? assert.fail('no set-up');
  const from = sysroot.slice(0, sysroot.indexOf('/parts/'));
  await writeFile(file, text.replaceAll(`${from}/parts/`, `${root}/parts/`));
}

/** Ends programs that a test left running as a user would: with Ctrl-C, and with a second one after a while. */
async function endAll(left: readonly Typed[]): Promise<void> {
  for (const { child } of left) child.kill('SIGINT');
  const impatience = setTimeout(() => {
    for (const { child } of left) child.kill('SIGINT');
  }, politeMs);
  await Promise.all(left.map((typed) => typed.ended));
  clearTimeout(impatience);
}

function startPodvm(podvm: string, env: NodeJS.ProcessEnv, args: readonly string[], input: string): Typed {
  const child = spawn(podvm, args, { env: { ...process.env, ...env } });
  child.stdin.on('error', () => {}); // a command that does not read its input
  child.stdin.end(input);
  let stdout = '';
  let stderr = '';
  const looks = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    for (const look of looks) look();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const look of looks) look();
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
  const shows = (pattern: RegExp, withinMs = 60_000) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (pattern.test(stdout) || pattern.test(stderr)) resolve();
      };
      looks.add(look);
      const fail = () => reject(new Error(`no ${String(pattern)} in:\n${stdout}\n${stderr}`));
      AbortSignal.timeout(withinMs).addEventListener('abort', fail);
      void ended.then(fail);
      look();
    });
  return { child, stdout: () => stdout, stderr: () => stderr, ended, shows };
}
