import assert from 'node:assert/strict';
import { chown, mkdtemp, rm } from 'node:fs/promises';
import { suite, test } from 'node:test';
import { run } from '#host/run.ts';
import { jailedImport } from '#image/import/jail.ts';
import { readerCalls, skopeoCalls } from '#image/jail-calls.ts';
import { imageUser } from '#image/import/image-user.ts';
import { skopeoJail } from '#image/source/skopeo.ts';
import { whyNoVm } from './node.ts';

const [notPermitted, noSuchCall] = [1, 38];
const newUser = 0x1000_0000;
const endSignal = 17; // SIGCHLD, as fork has it

/** Name, number and arguments of what a program that fell would go on with. */
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

/** Says the errno of each, by a program that is in every jail which shows the host's /usr. */
const script = attempts
  .map(([name, ...numbers]) => `$! = 0; syscall(${numbers.join(', ')}); print "${name}: ", $! + 0, "\\n";`)
  .join(' ');

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
    try {
      await use(directory);
    } finally {
      await rm(directory, { recursive: true });
    }
  };

  test('the reader has no call that leads out, and no socket', async () => {
    await withDirectory(async (work) => {
      const limits = { memoryBytes: 1024 ** 3, maxFileBytes: 1024 ** 2 };
      const whole = jailedImport({ work, sysroot: undefined, ...limits, calls: 3 });
      const jail = whole.slice(0, whole.lastIndexOf('--') + 1);
      const found = await errnosIn(jail, readerCalls());
      assert.deepEqual(found, refused);
    });
  });

  test('skopeo has no call that leads out, and no socket but those of the internet', async () => {
    await withDirectory(async (directory) => {
      const jail = skopeoJail({ directory, containersDirectory: '/etc/containers', maxFileBytes: 1024 ** 2, calls: 3 });
      const found = await errnosIn(jail, skopeoCalls());
      assert.deepEqual(found, { ...refused, 'socket 2': 0, 'socket 10': 0 });
    });
  });
});
