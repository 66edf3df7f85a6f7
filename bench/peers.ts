import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/run.ts';
import { readCurrent } from '#setup/setup.ts';

/** Another runtime, run as its users run it: one busybox container that says a line. */
export interface Peer extends AsyncDisposable {
  readonly name: string;
  /** From the shell to the first byte of output, in `ms`. */
  firstOutputMs(): Promise<number>;
}

/** Which peers can be measured, and how each is called on a bundle directory. */
const commands: Readonly<Record<string, (bundle: string, id: string) => readonly string[]>> = {
  crun: (bundle, id) => ['crun', '--cgroup-manager=disabled', 'run', '--bundle', bundle, id],
  runsc: (bundle, id) => ['runsc', '--network=none', '--ignore-cgroups', 'run', '--bundle', bundle, id],
};
const directories = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** The peer, or why it cannot be measured. */
export async function openPeer(name: string, root: string): Promise<Peer | string> {
  const command = commands[name];
  if (command === undefined) return `${name}: not a runtime that is known here (${Object.keys(commands).join(', ')})`;
  const found = await firstThat(directories, async (directory) => {
    await access(join(directory, name));
    return true;
  });
  if (found === undefined) return `${name}: not installed`;
  const bundle = await makeBundle(root);
  let next = 0;
  return {
    name,
    async firstOutputMs() {
      next += 1;
      const [program = '', ...args] = command(bundle, `bench-${process.pid}-${next}`);
      const startedMs = performance.now();
      const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
      let said = '';
      child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-500)));
      const closed = once(child, 'close');
      const first = await Promise.race([once(child.stdout, 'data'), closed.then(() => undefined)]);
      const ms = performance.now() - startedMs;
      await closed;
      if (first === undefined) throw new Error(`${name} said nothing: ${said.trim()}`);
      return ms;
    },
    [Symbol.asyncDispose]: () => rm(bundle, { recursive: true, force: true }),
  };
}

async function firstThat<T>(items: readonly T[], test: (item: T) => Promise<boolean>): Promise<T | undefined> {
  for (const item of items) if (await test(item).catch(() => false)) return item;
  return undefined;
}

/** The same static busybox as our base image has, unpacked. */
async function makeBundle(root: string): Promise<string> {
  const assets = await readCurrent(root);
  if (assets === undefined) throw new Error('run `podvm setup` first');
  const bundle = await mkdtemp('/var/tmp/podvm-bench-');
  await mkdir(join(bundle, 'rootfs/bin'), { recursive: true });
  for (const directory of ['proc', 'sys', 'dev', 'tmp']) await mkdir(join(bundle, 'rootfs', directory));
  await run('cp', [join(assets.sysroot, 'usr/bin/busybox'), join(bundle, 'rootfs/bin/sh')]);
  const namespaces = ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type }));
  const config = {
    ociVersion: '1.0.2',
    process: {
      args: ['/bin/sh', '-c', 'echo first'],
      env: ['PATH=/bin'],
      cwd: '/',
      user: { uid: 0, gid: 0 },
      noNewPrivileges: true,
    },
    root: { path: 'rootfs' },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
    ],
    linux: { namespaces },
  };
  await writeFile(join(bundle, 'config.json'), JSON.stringify(config));
  return bundle;
}
