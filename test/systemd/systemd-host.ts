import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, rmdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run, type RunResult } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';

const startTimeoutMs = 60_000;
const commandTimeoutMs = 300_000;
const units = '/lib/systemd/system';
/** Targets that a start pulls in; what they want would change the host, whose kernel and files are shared. */
const targets = ['sysinit', 'basic', 'multi-user', 'local-fs', 'timers', 'sockets', 'getty'];

/** The shell's last line, with which it becomes systemd. */
export const beSystemd =
  'exec env -i container=podvm-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=null';

/**
 * Lines of a shell in namespaces of its own: `/sys/fs/cgroup` gets the hierarchies as seen from the present cgroups. Its
 * words are the controllers of each hierarchy of version 1.
 */
export const ownHierarchies = `
umount -l /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
for controllers; do
  mkdir "/sys/fs/cgroup/$controllers"
  mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers"
done
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
`;

/**
 * Run by `sh`, in namespaces of its own: hierarchies as above, `/run`, `/opt` and the directory of units are new, and systemd
 * becomes the first process. `$1`: directory with `units` and `run`; then the controllers.
 */
const inside = `
work=$1; shift
${ownHierarchies}
mount --bind "$work/units" /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir /run/netns /run/lock
${beSystemd}
`;

/**
 * A systemd of the host's own distribution, as the first process of namespaces with the files, the network and the kernel
 * of the host, in cgroups of its own. It runs its journal and the service that is tested. Needs cgroups of version 1.
 */
export class SystemdHost implements AsyncDisposable {
  readonly #work: string;
  readonly #starter: ChildProcess;
  readonly #cgroups: readonly string[];
  /** Its first process, as the host sees it. */
  readonly pid: number;

  private constructor(work: string, starter: ChildProcess, cgroups: readonly string[], pid: number) {
    this.#work = work;
    this.#starter = starter;
    this.#cgroups = cgroups;
    this.pid = pid;
  }

  /** `unit`: content of `podvm.service`; `settings`: that of a drop-in file. */
  static async start(unit: string, settings: string): Promise<SystemdHost> {
    const work = await mkdtemp('/var/tmp/podvm-systemd-');
    const own = join(work, 'units');
    await mkdir(join(own, 'podvm.service.d'), { recursive: true });
    await writeFile(join(own, 'podvm.service'), unit);
    await writeFile(join(own, 'podvm.service.d/test.conf'), settings);
    await leaveUnitsOut(own);
    const hierarchies = await hierarchiesOf('self');
    const cgroups = await Promise.all(
      hierarchies.map(async ({ path }) => {
        const cgroup = join(path, `podvm-test-${process.pid}`);
        await mkdir(cgroup);
        return cgroup;
      }),
    );
    for (const cgroup of cgroups) await giveProcessors(cgroup);
    const enter = 'n=$1; shift; for i in $(seq "$n"); do echo $$ >"$1/cgroup.procs"; shift; done; exec "$@"';
    const namespaces = ['--mount', '--pid', '--cgroup', '--uts', '--ipc', '--propagation=private', '--mount-proc'];
    const controllers = hierarchies.map(({ name }) => name).filter((name) => name !== '' && !name.startsWith('name='));
    const words = ['unshare', ...namespaces, '--fork', '--kill-child', 'sh', '-ec', inside, 'sh', work, ...controllers];
    const starter = spawn('sh', ['-ec', enter, 'sh', String(cgroups.length), ...cgroups, ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    starter.stderr.setEncoding('utf8').on('data', (text: string) => (said = `${said}${text}`.slice(-2000)));
    const signal = AbortSignal.timeout(startTimeoutMs);
    const pid = await poll(() => childOf(starter.pid ?? 0), { everyMs: 50, signal });
    if (pid === undefined) throw new Error(`systemd does not start: ${said}`);
    const host = new SystemdHost(work, starter, cgroups, pid);
    process.once('exit', host.#killNow);
    const state = await poll(
      async () => isRunning((await host.type(['sh', '-c', 'systemctl is-system-running || true'])).stdout),
      { everyMs: 200, signal },
    );
    if (state !== undefined) return host;
    await host[Symbol.asyncDispose]();
    throw new Error(`systemd is not running within ${startTimeoutMs} ms`);
  }

  /** Runs a command inside. Errors: its exit code is not 0. */
  async type(words: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<RunResult> {
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const enter = ['--target', String(this.pid), '--mount', '--pid', '--cgroup', '--uts', '--ipc', 'env', '-i'];
    const path = 'PATH=/usr/sbin:/usr/bin:/sbin:/bin';
    return await run('nsenter', [...enter, path, ...variables, ...words], { timeoutMs: commandTimeoutMs });
  }

  /** State of the service and its main process, both of one moment. */
  async service(): Promise<{ readonly state: string; readonly pid: string }> {
    const { stdout } = await this.type(['systemctl', 'show', '--property', 'ActiveState,MainPID', 'podvm']);
    return {
      state: /^ActiveState=(.*)$/m.exec(stdout)?.[1] ?? '',
      pid: /^MainPID=(.*)$/m.exec(stdout)?.[1] ?? '',
    };
  }

  /** Ends everything inside with this process, when that is interrupted. */
  readonly #killNow = (): void => {
    process.kill(this.pid, 'SIGKILL');
  };

  /** Ends every process inside. systemd's own way to end would also act on the kernel, which is the host's. */
  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#starter, 'close');
    process.off('exit', this.#killNow);
    this.#killNow();
    await ended;
    for (const cgroup of this.#cgroups) await removeCgroup(cgroup);
    await rm(this.#work, { recursive: true });
  }
}

/** Whether `systemctl is-system-running` says so; else undefined. */
export const isRunning = (said: string): true | undefined => /^(running|degraded)/.test(said) || undefined;

/** Makes a directory of units one for which systemd starts nothing but its journal. */
export async function leaveUnitsOut(directory: string): Promise<void> {
  await symlink(join(units, 'multi-user.target'), join(directory, 'default.target'));
  for (const name of await wantedUnits()) await symlink('/dev/null', join(directory, name));
}

/** Units that the targets want, without the journal. */
async function wantedUnits(): Promise<ReadonlySet<string>> {
  const names = new Set(['console-getty.service']);
  for (const target of targets) {
    for (const name of await readdir(join(units, `${target}.target.wants`)).catch(() => [])) {
      if (!name.startsWith('systemd-journald') && !name.endsWith('.target')) names.add(name);
    }
  }
  return names;
}

/** The hierarchies of cgroups with the present cgroup in each; the name of that of version 2 is empty. */
async function hierarchiesOf(pid: string) {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').map((line) => line.split(' '));
  const lines = (await readFile(`/proc/${pid}/cgroup`, 'utf8')).trim().split('\n');
  return lines.flatMap((line) => {
    const [, name = '', path = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const isIt = (words: readonly string[]) => {
      const [type, , options = ''] = words.slice(words.indexOf('-') + 1);
      return name === ''
        ? type === 'cgroup2'
        : type === 'cgroup' && name.split(',').every((one) => options.split(',').includes(one));
    };
    const mount = mounts.find(isIt)?.[4];
    return mount === undefined ? [] : [{ name, path: join(mount, path) }];
  });
}

/** A new cgroup of the controller `cpuset` takes no process before it has processors and memory. */
export async function giveProcessors(cgroup: string): Promise<void> {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    const value = await readFile(join(cgroup, '..', file), 'utf8').catch(() => '');
    if (value !== '') await writeFile(join(cgroup, file), value);
  }
  await writeFile(join(cgroup, 'cgroup.clone_children'), '1').catch(() => undefined); // only in version 1
}

async function removeCgroup(cgroup: string): Promise<void> {
  for (const entry of await readdir(cgroup, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeCgroup(join(cgroup, entry.name));
  }
  await rmdir(cgroup);
}

/** The only child of `unshare`, once it is systemd. */
async function childOf(pid: number): Promise<number | undefined> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  const child = Number(children.trim().split(' ')[0]);
  if (!(child > 0)) return undefined;
  const command = await readFile(`/proc/${child}/comm`, 'utf8').catch(() => '');
  return command.trim() === 'systemd' ? child : undefined;
}
