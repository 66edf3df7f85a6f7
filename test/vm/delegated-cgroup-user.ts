import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hostLimits } from '#daemon/doctor/doctor-host-limits.ts';
import { openNamespaces } from '#daemon/rootless/namespaces.ts';
import { placeOfNode } from '#daemon/rootless/user-scope.ts';
import { cgroupRoot, podvmCgroup } from '#host/cgroup/cgroup-tree.ts';
import { makeJobCgroup } from '#host/cgroup/job-cgroup.ts';
import { insideVariable } from '#host/inside-namespaces.ts';
import { identify, killProcess } from '#host/process/process-identity.ts';
import { poll } from '#host/wait.ts';
import { confine, findHostCgroup } from '#vm/qemu/cgroup/host-cgroup.ts';

/**
 * Runs in a machine as an ordinary user, with a directory of the user: makes the namespaces of this user, in which it runs
 * itself as root, with what it shall do there as a second word. Prints what the kernel says, as `KEY: VALUE`.
 */
const [directory = '', what = 'all', pid = ''] = process.argv.slice(2);
const mebibyte = 1024 ** 2;
const node = { maySwap: false, diskBytesPerSecond: undefined };
const say = (key: string, value: string) =>
  void process.stdout.write(`${key}: ${value.trim().replaceAll('\n', ', ')}\n`);
const sayFile = async (key: string, path: string) => say(key, await readFile(path, 'latin1'));
const ofMachine = (file: string) => join(cgroupRoot, podvmCgroup, 'machine', file);

/** Removes a cgroup whose processes end: a busy machine takes longer than a node waits. */
async function removed(remove: () => PromiseLike<void>): Promise<void> {
  const once = async () =>
    await remove().then(
      () => true,
      () => undefined,
    );
  if ((await poll(once, { everyMs: 100, signal: AbortSignal.timeout(60_000) })) !== true) await remove();
}

/** Starts a program of another user, as VMMs are, which waits for a line. */
async function startOther(command: string): Promise<ChildProcess & { readonly pid: number }> {
  const script = `read go; exec ${command}`;
  const ids = ['--reuid=60000', '--regid=60000', '--clear-groups'];
  const child = spawn('setpriv', [...ids, 'sh', '-c', script], { stdio: ['pipe', 'ignore', 'inherit'] });
  await once(child, 'spawn');
  return child as typeof child & { readonly pid: number }; // SAFE: it was started
}

async function machineWithLimits(): Promise<void> {
  const other = await startOther('dd if=/dev/zero of=/dev/null bs=100M count=1');
  const cgroup = await confine(
    'machine',
    other.pid,
    { memoryBytes: 32 * mebibyte, cpuMillis: 500, cpuShares: 1024 },
    node,
  );
  await sayFile('machine', `/proc/${other.pid}/cgroup`);
  for (const file of ['memory.max', 'pids.max', 'cpu.max']) {
    await sayFile(file, ofMachine(file)).catch((error: NodeJS.ErrnoException) => say(file, error.code ?? ''));
  }
  const ended = once(other, 'exit') as Promise<[number | null, string | null]>;
  other.stdin?.end('\n');
  say('too much memory', `${(await ended)[1]}, ${(await cgroup.wasOutOfMemory()) ? 'out of memory' : 'not'}`);
  await removed(() => cgroup.remove());
}

async function jobWithLimits(): Promise<void> {
  const job = await makeJobCgroup('job', { memoryBytes: 64 * mebibyte, cpuShares: 100, processes: 3 });
  const several = 'trap "kill 0" EXIT; for i in 1 2 3 4 5; do sleep 600 2>/dev/null & done';
  const [program, ...words] = [...job.enter, 'sh', '-c', several];
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  let said = '';
  child.stderr.on('data', (bytes: Buffer) => (said += bytes.toString()));
  await once(child, 'close');
  say('too many processes', /cannot fork/i.test(said) ? 'refused' : `not refused: ${said}`);
  await removed(() => job[Symbol.asyncDispose]());
}

/** Leaves a machine of a node that is killed: one that uses a whole processor and has a tenth of one. */
async function machineOfKilledNode(): Promise<void> {
  const other = await startOther("sh -c 'while :; do :; done'");
  await confine('machine', other.pid, { memoryBytes: 32 * mebibyte, cpuMillis: 100, cpuShares: 1024 }, node);
  other.stdin?.end('\n');
  say('left', String(other.pid));
  process.kill(process.pid, 'SIGKILL');
}

async function adoptMachine(): Promise<void> {
  const cgroup = await findHostCgroup('machine', Number(pid));
  say('adopted', String(cgroup !== undefined));
  if (cgroup === undefined) return;
  const throttled = async () =>
    /^nr_throttled [1-9]/m.test(await readFile(ofMachine('cpu.stat'), 'latin1')) || undefined;
  const seen = await poll(throttled, { everyMs: 100, signal: AbortSignal.timeout(60_000) });
  say('too much processor time', seen === true ? 'throttled' : 'not throttled');
  await cgroup.limit({ memoryBytes: 48 * mebibyte, cpuMillis: undefined, cpuShares: 1024 });
  await sayFile('changed memory.max', ofMachine('memory.max'));
  process.kill(Number(pid), 'SIGKILL');
  await removed(() => cgroup.remove());
}

async function inside(holder: number, ...words: readonly string[]): Promise<string> {
  const target = ['--target', String(holder), '--user', '--mount', '--net', '--cgroup', '--preserve-credentials'];
  const child = spawn('nsenter', [...target, '--', process.execPath, import.meta.filename, directory, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, [insideVariable]: `${process.getuid?.()}:/` },
  });
  let said = '';
  child.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()));
  await once(child, 'close');
  process.stdout.write(said);
  return said;
}

const root = join(directory, 'state');

async function sayDoctor(when: string): Promise<void> {
  const { status, detail, fix = '' } = await hostLimits(root, false);
  say(`doctor ${when}`, `${status} ${detail}. ${fix}`);
}

/** Has a second node in the cgroup of the first. */
async function sayOther(own: () => Promise<string>): Promise<void> {
  const other = join(directory, 'other');
  await mkdir(other);
  const { status, detail } = await hostLimits(other, false);
  say('another state directory', `${status} ${detail}`);
  await using second = await openNamespaces(other, () => {}, AbortSignal.timeout(60_000));
  say('another node', `${await own()} ${second.hasCgroup}`);
}

async function asUser(): Promise<void> {
  await mkdir(root, { recursive: true });
  const own = async () => /^0::(.*)$/m.exec(await readFile('/proc/self/cgroup', 'latin1'))?.[1] ?? '';
  const cgroup = join(cgroupRoot, await own());
  const open = async () => await openNamespaces(root, () => {}, AbortSignal.timeout(60_000));
  const children = async () => {
    const entries = await readdir(cgroup, { withFileTypes: true });
    return entries.filter((each) => each.isDirectory()).map(({ name }) => name);
  };
  await sayDoctor('before');
  if (what === 'doctor') return;
  {
    await using namespaces = await open();
    say('own', await own());
    if (what === 'all') await sayOther(own);
    await inside(namespaces.holder, 'limits');
    await sayDoctor('with a node');
    if (what === 'part') return;
    const left = await inside(namespaces.holder, 'leave');
    await inside(namespaces.holder, 'adopt', /^left: (\d+)$/m.exec(left)?.[1] ?? '');
  }
  say('after', `${await own()} ${JSON.stringify(await children())}`);
  {
    await using killed = await open();
    const holder = await identify(killed.holder);
    if (holder !== undefined) await killProcess(holder);
    await sayDoctor('after a killed holder');
    await using next = await open();
    say('after a killed holder', `${await own()} ${JSON.stringify(await children())} ${next.hasCgroup}`);
  }
  say('after all', `${await own()} ${JSON.stringify(await children())}`);
}

if (what === 'limits') {
  await machineWithLimits();
  await jobWithLimits();
} else if (what === 'leave') await machineOfKilledNode();
else if (what === 'adopt') await adoptMachine();
else if (what === 'scope') {
  await sayDoctor('before');
  const { words, env } = await placeOfNode();
  const [program, ...others] = [...words, process.execPath, import.meta.filename, directory];
  await once(spawn(program, others, { stdio: 'inherit', env }), 'close');
} else await asUser();
