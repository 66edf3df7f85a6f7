import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { allPids, identify, killProcess } from '#host/process/process-identity.ts';
import { run, type RunResult } from '#host/process/run.ts';
import { assetsRoot } from './node.ts';

/**
 * An ordinary user with subordinate ids, on a host of its own: mount and network namespaces in which `/dev/net/tun` is open
 * to all users, as Debian has it, root has set up podvm and used podman, and a server is beside the host. All traffic stays in them.
 */
export interface OrdinaryUser extends AsyncDisposable {
  readonly uid: number;
  readonly gid: number;
  /** The first of 65,536 subordinate ids, for users and groups. */
  readonly subordinate: number;
  readonly home: string;
  /** State directory of the user's podvm. */
  readonly state: string;
  /** Arguments of nsenter that enter the host. */
  readonly enterHost: readonly string[];
  /** Address of the host. */
  readonly address: string;
  /** Address of the server beside the host, which is also the gateway of the host. */
  readonly server: string;
  readonly serverPort: number;
  /** Port of a server on the loopback of the host. */
  readonly loopbackPort: number;
  podvm(args: readonly string[], input?: string): Promise<RunResult>;
  makeDirectory(name: string): Promise<void>;
  /** Processes of the user and of the subordinate ids. */
  processes(): Promise<readonly string[]>;
}

const address = '10.213.7.1';
const server = '10.213.7.2';
const [serverPort, loopbackPort] = [8000, 9000];
const idCount = 65_536;
/** Where other users can enter the checkout, which may be in the home of root. */
const program = '/mnt/podvm';
const repo = join(import.meta.dirname, '../..');

/** Makes the host. Prints when it is made, and sleeps. */
const hostScript = `
mount --bind "$1/tun" /dev/net/tun
mkdir -p /var/lib/podvm
mount --bind "$2" /var/lib/podvm
mount --bind "$3" /mnt
[ ! -d /etc/cni ] || mount -t tmpfs -o mode=0700 tmpfs /etc/cni
[ ! -d /run/containers ] || mount -t tmpfs -o mode=0700 tmpfs /run/containers
ip link set lo up
ip link add outer type veth peer name inner netns "$4"
ip address add ${address}/24 dev outer
ip link set outer up
nsenter --net="/proc/$4/ns/net" sh -ec 'ip address add ${server}/24 dev inner; ip link set inner up; ip link set lo up'
ip route add default via ${server}
echo made
exec sleep infinity
`;

const serve = (text: string, port: number, host: string) =>
  `require('node:http').createServer((_, answer) => answer.end('${text}\\n')).listen(${port}, '${host}', () => console.log('made'))`;

export async function openOrdinaryUser(): Promise<OrdinaryUser> {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp('/var/tmp/podvm-user-');
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  await chmod(directory, 0o755);
  const home = join(directory, 'home');
  const name = `podvm${process.pid}`;
  await run('useradd', ['--create-home', '--home-dir', home, '--shell', '/bin/sh', '--user-group', name]);
  undo.defer(async () => void (await run('userdel', [name])));
  const [uid = 0, gid = 0] = (await run('id', ['-u', name])).stdout
    .concat((await run('id', ['-g', name])).stdout)
    .split('\n')
    .map(Number);
  const subordinate = await subordinateOf(name);
  const isTheirs = (id: number) => id === uid || (id >= subordinate && id < subordinate + idCount);
  undo.defer(async () => await killAll(isTheirs)); // a failed test leaves some
  await run('mknod', ['-m', '0666', join(directory, 'tun'), 'c', '10', '200']);

  const start = async (program: string, args: readonly string[]) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    undo.defer(async () => {
      const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined;
      child.kill('SIGKILL');
      await ended;
    });
    const [said] = (await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => [''])])) as [
      Buffer | string,
    ];
    assert.equal(said.toString(), 'made\n', args.join(' '));
    return child.pid ?? 0;
  };
  const beside = await start('unshare', [
    '--net',
    process.execPath,
    '-e',
    serve('beside the host', serverPort, '0.0.0.0'),
  ]);
  const words = [directory, assetsRoot, repo, String(beside)];
  const host = await start('unshare', ['--mount', '--net', 'sh', '-ec', hostScript, 'sh', ...words]);
  const enterHost = ['--target', String(host), '--mount', '--net'];
  await start('nsenter', [...enterHost, process.execPath, '-e', serve('on the loopback', loopbackPort, '127.0.0.1')]);

  const asUser = ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--reset-env', '--'];
  const owned = undo.move();
  return {
    uid,
    gid,
    subordinate,
    home,
    state: join(home, '.local/share/podvm'),
    enterHost,
    address,
    server,
    serverPort,
    loopbackPort,
    podvm: async (args, input = '') => {
      const command = [...asUser, 'sh', '-c', `cd && exec ${program} "$@"`, 'sh', ...args];
      return await run('nsenter', [...enterHost, ...command], { input, okCodes: 'any', timeoutMs: 300_000 });
    },
    makeDirectory: async (path) => {
      await mkdir(join(home, path));
      await chown(join(home, path), uid, gid);
    },
    processes: async () => (await processesOf(isTheirs)).map(({ pid, name: program }) => `${pid} ${program}`),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The ids that useradd has given to the user, or, where it gives none, some that no other user has. */
async function subordinateOf(name: string): Promise<number> {
  const read = async () => {
    const text = await readFile('/etc/subuid', 'utf8').catch(() => '');
    const lines = text.split('\n').map((line) => line.split(':'));
    const free = Math.max(100_000, ...lines.map(([, first, count]) => Number(first ?? 0) + Number(count ?? 0)));
    return { own: lines.find(([owner]) => owner === name)?.[1], free };
  };
  const { own, free } = await read();
  if (own !== undefined) return Number(own);
  const range = `${free}-${free + idCount - 1}`;
  await run('usermod', ['--add-subuids', range, '--add-subgids', range, name]);
  return free;
}

async function killAll(isTheirs: (uid: number) => boolean): Promise<void> {
  for (const { pid } of await processesOf(isTheirs)) {
    const identity = await identify(pid);
    if (identity !== undefined) await killProcess(identity);
  }
}

async function processesOf(isTheirs: (uid: number) => boolean) {
  const found: { readonly pid: number; readonly name: string }[] = [];
  for (const pid of await allPids()) {
    const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
    const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1] ?? -1);
    const name = /^Name:\t(.*)$/m.exec(status)?.[1] ?? '';
    if (isTheirs(uid) && !/^State:\tZ/m.test(status)) found.push({ pid, name });
  }
  return found;
}
