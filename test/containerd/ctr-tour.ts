import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run, type RunResult } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { typeOnTerminal } from '../conformance/crictl.ts';
import type { TourOptions } from './tour.ts';
import { baseImage } from './pod.ts';
import { type Steps, walkSteps } from './walk-steps.ts';

interface CtrTour extends Pick<TourOptions, 'containerd' | 'isWhole' | 'work' | 'replaceDaemon'> {
  /** File with the base image. */
  readonly image: string;
  /** Directory of podvm's records of tasks. */
  readonly records: string;
}

/** Of containerd; that of CRI is `k8s.io`. */
const namespace = 'tour';
const timeoutMs = 120_000;

const steps: Steps<CtrTour> = [
  ['a container of ctr runs in a machine and tells its output and exit code', runs],
  ['a container of ctr has a terminal of its size', types],
  ['namespaces of the host are refused with what to do', refuses],
  ['a detached container of ctr lists, executes, measures, ends by a signal and is deleted', detaches],
];

/** Steps that are too long for CI. */
const longSteps: Steps<CtrTour> = [
  ['limits, variables, mounts and read-only root file systems of ctr hold', isLimited],
  ['a container of ctr joins a network namespace, and has only loopback without one', joins],
  ['a detached container of ctr outlives both daemons, and its exit code is kept', outlives],
];

/** Runs containers that are no part of a pod, through `ctr`. Errors: all steps that failed. */
export async function tourCtr(tour: CtrTour & Pick<TourOptions, 'say'>): Promise<void> {
  const { image, records, say, containerd } = tour;
  const before = await readdir(records);
  await ctr(tour, 'images', 'import', image);
  try {
    await walkSteps(tour.isWhole ? [...steps, ...longSteps] : steps, tour, say);
  } catch (error) {
    for (const id of linesOf(await ctr(tour, 'tasks', 'list', '--quiet')))
      await attempt(tour, ['tasks', 'delete', '--force', id]);
    throw error;
  }
  for (const what of ['containers', 'tasks', 'snapshots']) {
    const left = (await ctr(tour, what, 'list')).split('\n').slice(1);
    // Snapshots of the image stay, which are committed.
    assert.deepEqual(
      left.filter((line) => (what === 'snapshots' ? / Active\s*$/.test(line) : line !== '')),
      [],
      what,
    );
  }
  assert.deepEqual(await readdir(records), before, 'no record is left');
  assert.deepEqual(await readdir(join(containerd.bundles, namespace)), []);
}

const linesOf = (text: string) => text.split('\n').filter(Boolean);

const argvOf = ({ containerd }: CtrTour, args: readonly string[]) => [
  containerd.ctrProgram,
  ...['--address', containerd.socket, '--namespace', namespace],
  ...args,
];

async function attempt(tour: CtrTour, args: readonly string[]): Promise<RunResult> {
  const [program = '', ...rest] = argvOf(tour, args);
  return await run(program, rest, { okCodes: 'any', timeoutMs });
}

async function ctr(tour: CtrTour, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await attempt(tour, args);
  assert.equal(code, 0, `ctr ${args.join(' ')}: ${stderr}`);
  return stdout;
}

const runArgs = (flags: readonly string[], id: string, command: readonly string[]) => [
  'run',
  ...['--runtime', 'io.containerd.podvm.v2', ...flags],
  ...[baseImage, id, ...command],
];

/** Runs a container to its end, and removes it. */
async function once(tour: CtrTour, id: string, script: string, ...flags: readonly string[]): Promise<RunResult> {
  return await attempt(tour, runArgs(['--rm', ...flags], id, ['sh', '-c', script]));
}

async function detached(tour: CtrTour, id: string, script: string): Promise<void> {
  await ctr(tour, ...runArgs(['--detach'], id, ['sh', '-c', script]));
}

async function stateOf(tour: CtrTour, id: string): Promise<string | undefined> {
  const line = (await ctr(tour, 'tasks', 'list')).split('\n').find((each) => each.startsWith(`${id} `));
  return line?.trim().split(/\s+/)[2];
}

async function stops(tour: CtrTour, id: string): Promise<void> {
  const look = async () => ((await stateOf(tour, id)) === 'STOPPED' ? true : undefined);
  assert.ok(await poll(look, { everyMs: 200, signal: AbortSignal.timeout(60_000) }), `${id} does not stop`);
}

/** Deletes a task that has ended, and its container. Returns the exit code of the former, which ctr 1.6 only logs. */
async function remove(tour: CtrTour, id: string): Promise<number> {
  const { code, stderr } = await attempt(tour, ['tasks', 'delete', id]);
  await ctr(tour, 'containers', 'delete', id);
  return Number(/exit with non-zero exit code (\d+)/.exec(stderr)?.[1] ?? code);
}

async function runs(tour: CtrTour): Promise<void> {
  const { code, stdout, stderr } = await once(tour, 'once', 'echo out; uname -r; echo err >&2; exit 7');
  assert.equal(code, 7, stderr);
  const [said, kernel] = stdout.split('\n');
  assert.equal(said, 'out');
  assert.notEqual(kernel, (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim());
  assert.match(stderr, /^err$/m); // beside warnings of ctr about the host
  // Of less input, ctr may see the end before the container is created, and then never passes it on.
  const input = Buffer.alloc(2_000_000);
  const [program = '', ...args] = argvOf(tour, runArgs(['--rm'], 'reads', ['wc', '-c']));
  assert.equal((await run(program, args, { timeoutMs, input })).stdout.trim(), String(input.length));
}

async function types(tour: CtrTour): Promise<void> {
  await using typed = typeOnTerminal(argvOf(tour, runArgs(['--rm', '--tty'], 'typed', ['sh'])));
  typed.write('until [ "$(stty size)" = "31 99" ]; do sleep 0.1; done; echo "size: $(stty size)"\n');
  await typed.says(/size: 31 99/);
  typed.write('tty; exit 4\n');
  await typed.says(/\/dev\/(?:pts\/\d+|console)/);
  assert.equal(await typed.ends(), 4);
}

async function isLimited(tour: CtrTour): Promise<void> {
  const shared = join(tour.work, 'ctr-shared');
  await mkdir(shared);
  await writeFile(join(shared, 'file'), 'of the host\n');
  const script = 'echo $WORD; cat /mnt/file; cat /sys/fs/cgroup/memory.max; touch /x 2>&1; hostname';
  const flags = [
    ...['--env', 'WORD=said', '--read-only', '--memory-limit', '67108864'],
    ...['--mount', `type=bind,src=${shared},dst=/mnt,options=rbind:ro`],
  ];
  const { stdout, stderr } = await once(tour, 'limited', script, ...flags);
  const lines = stdout.trimEnd().split('\n');
  assert.deepEqual(lines.slice(0, 3), ['said', 'of the host', '67108864'], stderr);
  assert.match(lines[3] ?? '', /Read-only file system/);
  assert.equal(lines[4], 'limited');
  assert.equal((await once(tour, 'eats', 'tail /dev/zero', '--memory-limit', '33554432')).code, 137);
}

async function joins(tour: CtrTour): Promise<void> {
  const script = 'cat /proc/net/dev | grep -c :';
  assert.equal((await once(tour, 'alone', script)).stdout.trim(), '1');
  const netns = `podvm-ctr-${process.pid}`;
  const ip = async (...args: readonly string[]) => await run('ip', args);
  await ip('netns', 'add', netns);
  try {
    await ip('-netns', netns, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'peer0');
    await ip('-netns', netns, 'address', 'add', '10.88.9.2/24', 'dev', 'eth0');
    for (const link of ['eth0', 'peer0']) await ip('-netns', netns, 'link', 'set', link, 'up');
    const { stdout, stderr } = await once(
      tour,
      'joins',
      'ip -4 address show eth0',
      '--with-ns',
      `network:/run/netns/${netns}`,
    );
    assert.match(stdout, /inet 10\.88\.9\.2\/24/, stderr);
  } finally {
    await ip('netns', 'delete', netns);
  }
}

async function refuses(tour: CtrTour): Promise<void> {
  const { code, stderr } = await once(tour, 'on-host', 'true', '--net-host');
  assert.equal(code, 1);
  assert.match(stderr, /shares the host's namespaces: network\. Run it with runc/);
}

async function detaches(tour: CtrTour): Promise<void> {
  await detached(tour, 'waits', 'trap "exit 5" TERM; while :; do sleep 0.1; done');
  assert.equal(await stateOf(tour, 'waits'), 'RUNNING');
  const exec = await attempt(tour, ['tasks', 'exec', '--exec-id', 'e1', 'waits', 'sh', '-c', 'echo in; exit 3']);
  assert.deepEqual([exec.code, exec.stdout], [3, 'in\n'], exec.stderr);
  await using typed = typeOnTerminal(argvOf(tour, ['tasks', 'exec', '--tty', '--exec-id', 'e2', 'waits', 'sh']));
  typed.write('until [ "$(stty size)" = "31 99" ]; do sleep 0.1; done; echo "sum: $((40 + 2))"; exit 6\n');
  await typed.says(/sum: 42/);
  assert.equal(await typed.ends(), 6);
  assert.match(await ctr(tour, 'tasks', 'metrics', 'waits'), /memory\.usage\s+[1-9]/);
  assert.match(await ctr(tour, 'tasks', 'ps', 'waits'), /^PID[^]*\n[1-9]/);
  const busy = await attempt(tour, ['tasks', 'delete', 'waits']);
  assert.notEqual(busy.code, 0, 'a running task is not deleted');
  const paused = await attempt(tour, ['tasks', 'pause', 'waits']);
  assert.match(paused.stderr, /Cannot pause waits/);
  await ctr(tour, 'tasks', 'kill', 'waits');
  await stops(tour, 'waits');
  assert.equal(await remove(tour, 'waits'), 5);
}

async function outlives(tour: CtrTour): Promise<void> {
  await detached(tour, 'outlives', 'until [ -e /end ]; do sleep 0.1; done; exit 9');
  await detached(tour, 'ends', 'until [ -e /end ]; do sleep 0.1; done; exit 8');
  await ctr(tour, 'tasks', 'exec', '--exec-id', 'e1', 'ends', 'touch', '/end');
  await stops(tour, 'ends');
  await tour.replaceDaemon('SIGKILL', () => tour.containerd.restart());
  assert.equal(await stateOf(tour, 'outlives'), 'RUNNING');
  assert.equal(await stateOf(tour, 'ends'), 'STOPPED');
  await ctr(tour, 'tasks', 'exec', '--exec-id', 'e1', 'outlives', 'touch', '/end');
  await stops(tour, 'outlives');
  assert.equal(await remove(tour, 'outlives'), 9);
  assert.equal(await remove(tour, 'ends'), 8);
}
