import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { jailedImport } from '#image/import/jail.ts';
import { readerCalls, skopeoCalls } from '#image/jail-calls.ts';
import { imageUser } from '#image/import/image-user.ts';
import { skopeoJail } from '#image/source/skopeo.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { sysroot } from '../images/image-tree.ts';
import { whyNoVm } from './node.ts';

const [notPermitted, noSuchCall] = [1, 38];
const newUser = 0x1000_0000;
const endSignal = 17; // SIGCHLD, as fork has it

/** Name, number and arguments of calls that a compromised program would make. */
const attempts: readonly (readonly [name: string, number: number, ...args: number[]])[] = [
  ['unshare', 272, newUser],
  ['setns', 308, 0, 0],
  ['mount', 165, 0, 0, 0, 0, 0],
  ['bpf', 321, 0, 0, 0],
  ['keyctl', 250, 0, -3, 1],
  ['io_uring_setup', 425, 1, 0],
  ['ptrace', 101, 0, 0, 0, 0],
  ['perf_event_open', 298, 0, 0, -1, -1, 0],
  ['init_module', 175, 0, 0, 0],
  ['kexec_load', 246, 0, 0, 0, 0],
  ['userfaultfd', 323, 0],
  ['clone', 56, newUser + endSignal, 0, 0, 0, 0],
  ...[16, 17, 38, 40].map((family) => [`socket ${family}`, 41, family, 3, 0] as const),
  ...[2, 10].map((family) => [`socket ${family}`, 41, family, 1, 0] as const),
];

/** Prints the errno of each, by a program that is in every jail with the host's /usr. */
const script = attempts
  .map(([name, ...numbers]) => `$! = 0; syscall(${numbers.join(', ')}); print "${name}: ", $! + 0, "\\n";`)
  .join(' ');

/** The process of skopeo that works in the directory. */
async function skopeoOf(directory: string): Promise<string | undefined> {
  for (const pid of await readdir('/proc')) {
    const words = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
    const mounts = await readFile(`/proc/${pid}/mountinfo`, 'latin1').catch(() => '');
    if (words.startsWith('skopeo\0') && mounts.includes(directory)) return pid;
  }
  return undefined;
}

/** Directory of a process's cgroup for memory. */
function cgroupOf(lines: string): string {
  const [, path = assert.fail(lines)] =
    /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(lines) ?? /^0::(.*)$/m.exec(lines) ?? [];
  return join(existsSync('/sys/fs/cgroup/memory') ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup', path);
}

await suite('a fallen program in the jails of images', { skip: await whyNoVm() }, () => {
  const errnosIn = async (jail: readonly string[], list: Buffer) => {
    const [program, ...args] = [...jail, 'perl', '-e', script];
    const { stdout } = await run(program, args, { inherited: [list] });
    const lines = stdout.trim().split('\n');
    return Object.fromEntries(lines.map((line) => [line.split(': ')[0], Number(line.split(': ')[1])]));
  };
  const refused = { ...Object.fromEntries(attempts.map(([name]) => [name, noSuchCall])), clone: notPermitted };

  const withDirectory = async (use: (directory: string) => Promise<void>) => {
    const directory = await mkdtemp('/var/tmp/podvm-jail-');
    await chown(directory, imageUser, imageUser);
    await chmod(directory, 0o711);
    try {
      await use(directory);
    } finally {
      await rm(directory, { recursive: true });
    }
  };

  test('the reader has no call that leads out, and no socket', async () => {
    await withDirectory(async (work) => {
      const limits = { memoryBytes: 1024 ** 3, maxFileBytes: 1024 ** 2 };
      const whole = jailedImport({ work, ...limits, calls: 3 });
      const jail = whole.slice(0, whole.lastIndexOf('--') + 1);
      const found = await errnosIn(jail, readerCalls());
      assert.deepEqual(found, refused);
    });
  });

  test('skopeo has its own cgroup while a registry does not answer, which is removed with it', async () => {
    const registry = createServer();
    registry.listen(0, '127.0.0.1');
    await once(registry, 'listening');
    const { port } = registry.address() as AddressInfo; // SAFE: it listens on TCP
    await withDirectory(async (directory) => {
      const images = { directory: join(directory, 'images'), sysroot: await sysroot(), log: silentLog };
      const store = await openImageStore(images);
      const abort = new AbortController();
      const pulling = store.pull(`127.0.0.1:${port}/x:1`, {}, abort.signal);
      const pid = await poll(() => skopeoOf(directory), { everyMs: 1, signal: AbortSignal.timeout(20_000) });
      const cgroup = cgroupOf(await readFile(`/proc/${pid ?? assert.fail('no skopeo')}/cgroup`, 'latin1'));
      assert.match(cgroup, /\/podvm\/pull-\d+-\d+$/);
      const [limit] = ['memory.max', 'memory.limit_in_bytes'].filter((file) => existsSync(join(cgroup, file)));
      assert.equal(Number(await readFile(join(cgroup, limit ?? assert.fail()), 'latin1')), 1024 ** 3);
      abort.abort();
      await assert.rejects(pulling, { kind: 'cancelled' });
      const isGone = async () => (existsSync(cgroup) ? undefined : true);
      assert.ok(await poll(isGone, { everyMs: 5, signal: AbortSignal.timeout(20_000) }), 'the cgroup stays');
    });
    registry.close();
  });

  test('skopeo has no call that leads out, and no socket but those of the internet', async () => {
    await withDirectory(async (directory) => {
      const directories = { directory, layout: directory, containersDirectory: '/etc/containers' };
      const jail = skopeoJail({ ...directories, maxFileBytes: 1024 ** 2, calls: 3 });
      const found = await errnosIn(jail, skopeoCalls());
      assert.deepEqual(found, { ...refused, 'socket 2': 0, 'socket 10': 0 });
    });
  });
});
