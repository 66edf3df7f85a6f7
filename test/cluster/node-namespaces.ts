import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { defaultEnv, run, type RunOptions, type RunResult } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { Conversation } from '../conformance/crictl.ts';
import { beSystemd, giveProcessors, isRunning, leaveUnitsOut, ownHierarchies } from '../systemd/systemd-host.ts';
import { NodeCgroups } from './node-cgroups.ts';
import { serviceOfUnit, writeUnit } from './node-units.ts';
import { adminConfig } from './places.ts';

export interface NodeOptions {
  readonly name: string;
  readonly address: string;
  /** Directory for what is below /var on the node. */
  readonly work: string;
  /** Whether its first process is systemd, in its cgroups; needs those of version 1. */
  readonly hasSystemd: boolean;
}

/** A program that runs on a node until it is ended. */
export interface Service extends AsyncDisposable {
  readonly logFile: string;
  isRunning(): Promise<boolean>;
  /** Sends a signal and waits for the end. */
  end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>;
  /** Starts it again, after its end. */
  begin(): Promise<void>;
}

/** Ends a program of a node, and starts it again. */
export async function restart(service: Service, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
  await service.end(signal);
  await service.begin();
}

/** Directories of the node that are on disk, below its own directory. */
const onDisk = ['lib/podvm', 'lib/containerd', 'lib/kubelet', 'lib/etcd', 'lib/cni', 'log'];
const startTimeoutMs = 20_000;
const endTimeoutMs = 60_000;

/**
 * The first process of a node. /etc, /opt, /usr/local and /var/lib are the host's with changes of the node's own, /run is
 * new. It collects processes whose parents have ended, and ends, with the whole node, when its input does. Systemd ends
 * with its starter instead. `$@`: see `ownHierarchies`.
 */
const firstProcess = ({ name, work, hasSystemd }: NodeOptions) => `set -eu
mount -t proc proc /proc
hostname ${name}
mount -t tmpfs -o mode=755 run /run
for directory in etc opt usr/local var/lib; do
  own=/run/.node/$(echo $directory | tr / -)
  mkdir -p $own/upper $own/work
  mount -t overlay -o lowerdir=/$directory,upperdir=$own/upper,workdir=$own/work overlay /$directory
done
for directory in ${onDisk.join(' ')}; do
  mkdir -p ${work}/$directory /var/$directory
  mount --bind ${work}/$directory /var/$directory
done
mkdir -p /opt/cni/bin
mount --bind /usr/lib/cni /opt/cni/bin
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
${hasSystemd ? underSystemd(name, work) : ''}
mount --make-rshared /
echo ready
${hasSystemd ? beSystemd : 'while read -r line; do :; done'}
`;

const underSystemd = (name: string, work: string) => `echo ${name} >/etc/hostname
mkdir -p /run/lock /run/netns
mount --bind ${work}/units /etc/systemd/system
${ownHierarchies}`;

/** Enters as many cgroups as `$1` says, which the next words name, and becomes the words after them. */
const enterCgroups = 'n=$1; shift; for i in $(seq "$n"); do echo $$ >"$1/cgroup.procs"; shift; done; exec "$@"';

/**
 * A node of the cluster: processes in namespaces of their own for mounts, processes, network, IPC and host name, so that
 * daemons and manifests find their usual places, and nothing of the host is changed.
 */
export class ClusterNode implements AsyncDisposable {
  readonly name: string;
  readonly address: string;
  readonly work: string;
  readonly #holder: ChildProcess;
  /** Pid of the node's first process. */
  readonly pid: number;
  readonly cgroups: NodeCgroups;
  readonly hasSystemd: boolean;

  private constructor(options: NodeOptions, cgroups: NodeCgroups, holder: ChildProcess, pid: number) {
    this.name = options.name;
    this.address = options.address;
    this.work = options.work;
    this.hasSystemd = options.hasSystemd;
    this.cgroups = cgroups;
    this.#holder = holder;
    this.pid = pid;
  }

  static async start(options: NodeOptions): Promise<ClusterNode> {
    await mkdir(options.work, { mode: 0o711 });
    await using undo = new AsyncDisposableStack();
    const cgroups = await NodeCgroups.make(`${basename(dirname(options.work))}-${options.name}`);
    undo.defer(() => cgroups.remove());
    const namespaces = ['--mount', '--net', '--uts', '--ipc', '--pid', '--fork', '--kill-child'];
    const entered = options.hasSystemd ? cgroups : { directories: [], controllers: [] };
    if (options.hasSystemd) {
      await prepareSystemd(options.work, cgroups);
      namespaces.push('--cgroup');
    }
    const script = [firstProcess(options), options.name, ...entered.controllers];
    const words = ['unshare', ...namespaces, '--propagation', 'slave', '--', 'bash', '-c', ...script];
    const enter = ['-ec', enterCgroups, 'sh', String(entered.directories.length), ...entered.directories];
    const argv = [...enter, 'setpriv', '--pdeathsig', 'KILL', ...words];
    const holder = spawn('sh', argv, { stdio: 'pipe', env: defaultEnv(), detached: true });
    let said = '';
    holder.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    const ready = once(holder.stdout, 'data', { signal: AbortSignal.timeout(startTimeoutMs) });
    const ended = once(holder, 'exit').then(() => {
      throw new PodvmError('failedPrecondition', `Cannot start ${options.name}: ${said.trim()}`);
    });
    await Promise.race([ready, ended]);
    const node = new ClusterNode(options, cgroups, holder, await childOf(holder));
    undo.defer(() => node.#end());
    if (options.hasSystemd) await node.#isUp();
    undo.move();
    return node;
  }

  /** Waits until its systemd has started. */
  async #isUp(): Promise<void> {
    const state = async () =>
      isRunning((await this.run('systemctl', ['is-system-running'], { okCodes: 'any' })).stdout);
    const found = await poll(state, { everyMs: 200, signal: AbortSignal.timeout(3 * startTimeoutMs) });
    if (found === undefined) throw new PodvmError('timeout', `systemd of ${this.name} does not run`);
  }

  /** Runs a program of the node to its end, as `run` does. */
  async run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return await run('nsenter', this.#enter(program, args), { env: this.#env(), ...options });
  }

  /** Runs a program to its end, whose output goes to standard error. Returns its exit code, or undefined after a signal. */
  async show(program: string, args: readonly string[], signal: AbortSignal): Promise<number | undefined> {
    const words = this.#enter('setpriv', ['--pdeathsig', 'KILL', program, ...args]);
    const child = spawn('nsenter', words, { env: this.#env(), stdio: ['ignore', 2, 2], signal });
    const [code] = (await once(child, 'exit')) as [number | null];
    return code ?? undefined;
  }

  /** Starts an interactive program, which ends with the `nsenter` that starts it. */
  speak(program: string, ...args: readonly string[]): Conversation {
    const words = this.#enter('setpriv', ['--pdeathsig', 'KILL', program, ...args]);
    return new Conversation(spawn('nsenter', words, { env: this.#env() }));
  }

  /** Starts a program whose output goes to a file of its name. It ends with the node at the latest. */
  async serve(name: string, program: string, args: readonly string[]): Promise<Service> {
    const service = this.service(name, program, args);
    if (this.hasSystemd) {
      await writeUnit(this, name, [program, ...args], { environment: this.#env(), logFile: service.logFile });
    }
    await service.begin();
    return service;
  }

  /** A program as `serve` starts it, which does not run yet. */
  service(name: string, program: string, args: readonly string[]): Service {
    const logFile = join(this.work, `${name}.log`);
    if (this.hasSystemd) return serviceOfUnit(this, name, logFile);
    let child: ChildProcess | undefined;
    const runs = () => child?.exitCode === null && child.signalCode === null;
    const service: Service = {
      logFile,
      isRunning: async () => runs(),
      begin: async () => {
        await using output = await open(logFile, 'a');
        const stdio = ['ignore', output.fd, output.fd] as const;
        child = spawn('nsenter', this.#enter(program, args), { stdio: [...stdio], env: this.#env() });
      },
      end: async (signal) => {
        if (child === undefined || !runs()) return;
        const ended = once(child, 'exit');
        const pid = await childOf(child);
        process.kill(pid, signal);
        const late = setTimeout(() => process.kill(pid, 'SIGKILL'), endTimeoutMs);
        await ended;
        clearTimeout(late);
      },
      [Symbol.asyncDispose]: () => service.end('SIGTERM'),
    };
    return service;
  }

  /** Command lines of the processes that run besides the first one. */
  async processes(): Promise<readonly string[]> {
    const { stdout } = await this.run('ps', ['-eo', 'pid=,args=']);
    const isOwn = (line: string) => /^\s*1 |ps -eo pid=,args=$/.test(line);
    return stdout.split('\n').filter((line) => line !== '' && !isOwn(line));
  }

  /** Ends all that runs on it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
    await this.cgroups.remove();
  }

  async #end(): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    const ended = once(this.#holder, 'exit');
    process.kill(this.pid, 'SIGKILL');
    await ended;
  }

  #enter(program: string, args: readonly string[]): readonly string[] {
    return ['--target', String(this.pid), '--all', '--', program, ...args];
  }

  #env(): Record<string, string> {
    return { ...defaultEnv(), KUBECONFIG: adminConfig };
  }
}

/** Lets a systemd that starts nothing by itself run in these cgroups. */
async function prepareSystemd(work: string, { directories }: NodeCgroups): Promise<void> {
  await mkdir(join(work, 'units'));
  await leaveUnitsOut(join(work, 'units'));
  for (const directory of directories) await giveProcessors(directory);
}

/** The only child of `unshare` or `nsenter`, which is in the namespaces of processes that they enter. */
async function childOf({ pid }: ChildProcess): Promise<number> {
  const look = async () => {
    const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'latin1');
    return Number(children) || undefined;
  };
  const found = await poll(look, { everyMs: 20, signal: AbortSignal.timeout(startTimeoutMs) });
  if (found === undefined) throw new PodvmError('timeout', 'Cannot start a program on the node: it has no process');
  return found;
}
