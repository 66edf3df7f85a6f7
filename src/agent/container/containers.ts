import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { AgentEvent, ContainerParams, ExecParams, Params, Result, Stdio } from '#wire/messages.ts';
import type { Channel } from '../channel/channel.ts';
import { open } from '../engine/constants.ts';
import { codeOf, ready, type ChildExit, type Engine } from '../engine/engine.ts';
import { openStreams, ProcessIo, resetStreams, type ProcessStreams } from '../io/process-io.ts';
import type { Disks } from '../volume/disks.ts';
import type { Volumes } from '../volume/volumes.ts';
import { podCgroup, type Cgroups } from './cgroups.ts';
import type { Children } from './children.ts';
import type { Container, Exec } from './container.ts';
import { crunStateRoot, directoryFlags, type Crun, type CrunResult } from './crun.ts';
import { ociConfig, type DeviceNode, type OciProcess } from './oci-config.ts';
import { mountRootfs, removeRootfs, volumeMounts } from './rootfs.ts';
import { resolveUser, type ResolvedUser } from './users.ts';

const bundlesDirectory = '/run/podvm/containers';
const maxProcessBytes = 1024 * 1024;
const killPollMs = 5;
const killTimeoutMs = 10_000;

/** What containers have in common: parts, and the pod as `configure` made it. */
export interface ContainerParts {
  readonly engine: Engine;
  readonly channel: Channel;
  readonly children: Children;
  readonly crun: Crun;
  readonly cgroups: Cgroups;
  readonly disks: Disks;
  readonly volumes: Volumes;
  readonly tell: (event: AgentEvent) => void;
  /** Errors: `failedPrecondition` before `configure`. */
  readonly pod: () => { readonly hostname: string; readonly files: string; readonly pausePid: number | undefined };
  readonly devices: () => readonly DeviceNode[];
  readonly forbiddenMajors: () => readonly number[];
}

/** The containers of the pod and their execs. */
export class Containers {
  readonly #parts: ContainerParts;
  readonly #containers = new Map<string, Container>();
  #execCount = 0;

  constructor(parts: ContainerParts) {
    this.#parts = parts;
  }

  /** Errors: `alreadyExists`, `exhausted`, `notFound` (disk, volume), `failedPrecondition` with what crun said. */
  async create(params: ContainerParams): Promise<Result<'createContainer'>> {
    const { id } = params;
    if (this.#containers.has(id)) throw new PodvmError('alreadyExists', `Cannot create container ${id}: it is there`);
    if (this.#containers.size >= limits.maxContainers) {
      throw new PodvmError('exhausted', `Cannot create container ${id}: ${limits.maxContainers} are there`);
    }
    const streams = openStreams(this.#parts.channel, params.stdio);
    const container = newContainer(params);
    this.#containers.set(id, container);
    try {
      return await this.#make(container, params, streams);
    } catch (error) {
      resetStreams(streams);
      await this.#discard(container);
      throw error;
    }
  }

  async start(id: string): Promise<Result<'startContainer'>> {
    const { engine, children, crun } = this.#parts;
    const container = this.#get(id);
    if (container.state !== 'created') {
      throw new PodvmError('failedPrecondition', `Cannot start container ${id}: it is ${container.state}`);
    }
    container.state = 'running';
    await children.expecting(() =>
      crun.call({ command: 'start', options: [], id, fds: [-1, -1, -1], tty: false, wantsPid: false }),
    );
    return { startedAtMs: engine.realtimeMs() };
  }

  signal({ id, signal, all }: Params<'signalContainer'>): void {
    const container = this.#get(id);
    if (container.state === 'exited' || container.pid === 0) return;
    const pids = all === true ? this.#parts.cgroups.pids(container.cgroup) : [container.pid];
    for (const pid of pids) this.#kill(pid, signal);
  }

  update({ id, resources }: Params<'updateContainer'>): void {
    this.#parts.cgroups.limit(this.#get(id).cgroup, resources);
  }

  async remove(id: string): Promise<void> {
    const container = this.#containers.get(id);
    if (container === undefined) return;
    if (container.state === 'creating') throw new PodvmError('busy', `Cannot remove container ${id}: it is being created`);
    await this.#discard(container);
  }

  readFile({ containerId, path, maxBytes }: Params<'readFile'>): Result<'readFile'> {
    const { engine } = this.#parts;
    const container = this.#get(containerId);
    const isLog = path === container.params.terminationLogPath;
    const directory = isLog ? container.bundle : `${container.bundle}/rootfs`;
    const root = engine.open(directory, directoryFlags);
    let fd = -1;
    try {
      fd = engine.openBeneath(root, isLog ? 'termination-log' : path, open.readOnly | open.nonBlock | open.noControllingTty);
      if (engine.statusOf(fd).kind !== 'file') throw new PodvmError('invalid', 'Cannot read file: it is not a regular file');
      const bytes = new Uint8Array(maxBytes + 1);
      let count = 0;
      for (let n = 1; n > 0 && count < bytes.length; count += n) n = Math.max(engine.read(fd, bytes, count), 0);
      return { data: engine.encodeBase64(bytes.subarray(0, Math.min(count, maxBytes))), truncated: count > maxBytes };
    } finally {
      engine.close(root);
      if (fd >= 0) engine.close(fd);
    }
  }

  /** Errors: `failedPrecondition` if the container does not run or the program cannot be started. */
  async startExec(params: ExecParams): Promise<Result<'startExec'>> {
    const { containerId, execId } = params;
    const container = this.#get(containerId);
    if (container.state !== 'running') {
      throw new PodvmError('failedPrecondition', `Cannot exec in container ${containerId}: it is ${container.state}`);
    }
    if (container.execs.has(execId)) throw new PodvmError('alreadyExists', `Cannot exec: ${execId} is there`);
    if (this.#execsInAll() >= limits.maxExecs) throw new PodvmError('exhausted', `Cannot exec: ${limits.maxExecs} run`);
    const streams = openStreams(this.#parts.channel, params.stdio);
    const exec: Exec = { id: execId, pid: 0, io: undefined };
    container.execs.set(execId, exec);
    try {
      return await this.#runExec(container, exec, params, streams);
    } catch (error) {
      resetStreams(streams);
      container.execs.delete(execId);
      throw error;
    }
  }

  signalExec({ containerId, execId, signal }: Params<'signalExec'>): void {
    const exec = this.#get(containerId).execs.get(execId);
    if (exec !== undefined && exec.pid > 0) this.#kill(exec.pid, signal);
  }

  resize({ containerId, execId, columns, rows }: Params<'resize'>): void {
    this.#io(containerId, execId)?.resize(columns, rows);
  }

  attach({ containerId, execId, stdio }: { containerId: string; execId?: string | undefined; stdio: Stdio }): void {
    const io = this.#io(containerId, execId);
    if (io === undefined) throw new PodvmError('failedPrecondition', 'Cannot attach: the process has ended');
    io.attach(openStreams(this.#parts.channel, stdio));
  }

  stats(): Result<'stats'>['containers'] {
    return [...this.#containers.values()].map(({ id, cgroup }) => ({ id, ...this.#parts.cgroups.figures(cgroup) }));
  }

  /** SIGTERM to all, SIGKILL after `graceMs`, everything removed. Never rejects. */
  async stopAll(graceMs: number): Promise<void> {
    const all = [...this.#containers.values()];
    for (const { id } of all) this.signal({ id, signal: 15 });
    const { engine } = this.#parts;
    const deadlineMs = engine.monotonicMs() + graceMs;
    while (all.some(({ state }) => state === 'running') && engine.monotonicMs() < deadlineMs) await this.#pause();
    for (const container of all) {
      try {
        await this.#discard(container);
      } catch (error) {
        engine.print(`shutdown: ${error instanceof Error ? error.message : 'unknown'}`);
      }
    }
  }

  async #make(container: Container, params: ContainerParams, streams: ProcessStreams): Promise<Result<'createContainer'>> {
    const { engine, children, disks } = this.#parts;
    const phases: { name: string; ms: number }[] = [];
    let lastMs = engine.monotonicMs();
    const phase = (name: string) => {
      const nowMs = engine.monotonicMs();
      phases.push({ name, ms: nowMs - lastMs });
      lastMs = nowMs;
    };
    mountRootfs(engine, disks, container, params);
    phase('rootfs');
    const user = this.#writeConfig(container, params);
    phase('config');
    const pid = await children.expecting(async () => {
      const { pid, io } = await this.#spawn('create', params, streams, ['--bundle', container.bundle], params.id);
      container.io = io;
      container.pid = pid;
      container.state = 'created';
      children.onExit(pid, (exit) => this.#containerExited(container, exit));
      return pid;
    });
    this.#watchMemory(container);
    phase('crun');
    return { pid, uid: user.uid, gid: user.gid, phases };
  }

  #writeConfig(container: Container, params: ContainerParams): ResolvedUser {
    const { engine, volumes, devices, forbiddenMajors } = this.#parts;
    const { hostname, files, pausePid } = this.#parts.pod();
    const root = engine.open(`${container.bundle}/rootfs`, directoryFlags);
    let user: ResolvedUser;
    try {
      user = resolveUser(engine, root, params.process);
    } finally {
      engine.close(root);
    }
    const config = ociConfig({
      params,
      user,
      hostname,
      mounts: volumeMounts(engine, volumes, container, params, files),
      pidNamespaceOf: pausePid,
      cgroupPath: container.cgroup,
      devices: params.privileged ? devices() : [],
      forbiddenMajors: forbiddenMajors(),
    });
    engine.writeFile(`${container.bundle}/config.json`, JSON.stringify(config), 0o600);
    return user;
  }

  /** Calls crun with the process's streams; the process's ends are closed again, ours are in `io`. */
  async #spawn(
    command: 'create' | 'exec',
    params: { readonly tty: boolean; readonly columns?: number | undefined; readonly rows?: number | undefined },
    streams: ProcessStreams,
    options: readonly string[],
    id: string,
  ): Promise<{ pid: number; io: ProcessIo }> {
    const { engine, crun } = this.#parts;
    const io = new ProcessIo(engine);
    const fds: [number, number, number] = params.tty ? [-1, -1, -1] : io.makePipes(streams);
    let result: CrunResult;
    try {
      result = await crun.call({ command, options, id, fds, tty: params.tty, wantsPid: true });
      if (params.tty && result.terminal < 0) throw new PodvmError('internal', 'Cannot start process: crun sent no terminal');
    } catch (error) {
      io.close();
      throw error;
    } finally {
      for (const fd of fds) if (fd >= 0) engine.close(fd);
    }
    if (params.tty) io.useTerminal(result.terminal, params);
    io.attach(streams);
    return { pid: result.pid, io };
  }

  async #runExec(container: Container, exec: Exec, params: ExecParams, streams: ProcessStreams): Promise<{ pid: number }> {
    const { engine, children } = this.#parts;
    this.#execCount += 1;
    const file = `${container.bundle}/exec${this.#execCount}.json`;
    engine.writeFile(file, JSON.stringify(this.#execProcess(container, params)), 0o600);
    try {
      return await children.expecting(async () => {
        const options = ['--detach', '--process', file];
        const { pid, io } = await this.#spawn('exec', params, streams, options, container.id);
        exec.pid = pid;
        exec.io = io;
        children.onExit(pid, (exit) => this.#execExited(container, exec, exit));
        return { pid };
      });
    } finally {
      engine.removeFile(file);
    }
  }

  /** The container's own process with other arguments. */
  #execProcess(container: Container, params: ExecParams): OciProcess {
    const text = this.#parts.engine.readText(`${container.bundle}/config.json`, maxProcessBytes);
    const { process } = JSON.parse(text) as { process: OciProcess }; // SAFE: we wrote it
    const { args, cwd = process.cwd, tty, env = [], columns, rows } = params;
    const names = new Set(env.map((entry) => entry.slice(0, entry.indexOf('=') + 1)));
    const kept = process.env.filter((entry) => !names.has(entry.slice(0, entry.indexOf('=') + 1)));
    const term = tty && ![...kept, ...env].some((entry) => entry.startsWith('TERM=')) ? ['TERM=xterm'] : [];
    return {
      ...process,
      args,
      cwd,
      terminal: tty,
      env: [...kept, ...env, ...term],
      ...(columns !== undefined && rows !== undefined ? { consoleSize: { width: columns, height: rows } } : {}),
    };
  }

  #containerExited(container: Container, exit: ChildExit): void {
    const { engine, cgroups } = this.#parts;
    const wasCreated = container.state !== 'creating';
    container.state = 'exited';
    container.pid = 0;
    // With a shared pid namespace nobody else ends what the first process left behind.
    if (cgroups.isPopulated(container.cgroup)) cgroups.kill(container.cgroup);
    const oomKilled = this.#updateOomKills(container);
    this.#unwatchMemory(container);
    container.io?.processGone();
    if (wasCreated) {
      const finishedAtMs = engine.realtimeMs();
      this.#parts.tell({ kind: 'exited', containerId: container.id, ...endOf(exit), oomKilled, finishedAtMs });
    }
  }

  #execExited(container: Container, exec: Exec, exit: ChildExit): void {
    const before = container.oomKills;
    this.#updateOomKills(container);
    exec.io?.processGone();
    container.execs.delete(exec.id);
    this.#parts.tell({
      kind: 'exited',
      containerId: container.id,
      execId: exec.id,
      ...endOf(exit),
      oomKilled: exit.signal === 9 && container.oomKills > before,
      finishedAtMs: this.#parts.engine.realtimeMs(),
    });
  }

  /** True if the kernel has ever killed a process of the container for lack of memory. */
  #updateOomKills(container: Container): boolean {
    container.oomKills = Math.max(container.oomKills, this.#parts.cgroups.oomKills(container.cgroup));
    return container.oomKills > 0;
  }

  #watchMemory(container: Container): void {
    const { engine, cgroups, tell } = this.#parts;
    if (container.state === 'exited') return;
    try {
      container.memoryEventsFd = engine.open(`/sys/fs/cgroup${container.cgroup}/memory.events`, open.readOnly);
      const scratch = new Uint8Array(512);
      engine.read(container.memoryEventsFd, scratch); // arms the notification
      engine.watch(container.memoryEventsFd, ready.priority, () => {
        engine.seek(container.memoryEventsFd, 0);
        engine.read(container.memoryEventsFd, scratch);
        const kills = cgroups.oomKills(container.cgroup);
        if (kills <= container.oomKills) return;
        container.oomKills = kills;
        tell({ kind: 'oomKilled', containerId: container.id });
      });
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error; // a kernel without the memory controller
    }
  }

  #unwatchMemory(container: Container): void {
    if (container.memoryEventsFd < 0) return;
    this.#parts.engine.close(container.memoryEventsFd);
    container.memoryEventsFd = -1;
  }

  /** Kills what runs, and takes everything of it away. Errors: `timeout` when a process does not die. */
  async #discard(container: Container): Promise<void> {
    const { engine, cgroups, disks } = this.#parts;
    const deadlineMs = engine.monotonicMs() + killTimeoutMs;
    cgroups.kill(container.cgroup);
    while (!cgroups.remove(container.cgroup) || (container.pid !== 0 && container.state !== 'exited')) {
      if (engine.monotonicMs() > deadlineMs) {
        throw new PodvmError('timeout', `Cannot remove container ${container.id}: its processes do not end`);
      }
      await this.#pause();
      cgroups.kill(container.cgroup);
    }
    this.#unwatchMemory(container);
    container.io?.close();
    for (const { io } of container.execs.values()) io?.close();
    removeRootfs(engine, disks, container);
    engine.removeTree(`${crunStateRoot}/${container.id}`);
    this.#containers.delete(container.id);
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#parts.engine.setTimer(killPollMs, resolve);
    });
  }

  #kill(pid: number, signal: number): void {
    try {
      this.#parts.engine.kill(pid, signal);
    } catch (error) {
      if (codeOf(error) !== 'ESRCH') throw error;
    }
  }

  #get(id: string): Container {
    const container = this.#containers.get(id);
    if (container === undefined) throw new PodvmError('notFound', `Cannot use container ${id}: there is none`);
    return container;
  }

  #io(containerId: string, execId: string | undefined): ProcessIo | undefined {
    const container = this.#get(containerId);
    return execId === undefined ? container.io : container.execs.get(execId)?.io;
  }

  #execsInAll(): number {
    let count = 0;
    for (const { execs } of this.#containers.values()) count += execs.size;
    return count;
  }
}

function newContainer(params: ContainerParams): Container {
  return {
    id: params.id,
    cgroup: `${podCgroup}/${params.id}`,
    bundle: `${bundlesDirectory}/${params.id}`,
    params: {
      terminationLogPath: params.terminationLogPath,
      scratchDisk: params.scratchDisk,
      noNewPrivileges: params.process.noNewPrivileges,
    },
    state: 'creating',
    pid: 0,
    io: undefined,
    execs: new Map(),
    mountPoints: [],
    oomKills: 0,
    memoryEventsFd: -1,
  };
}

function endOf({ code, signal }: ChildExit): { exitCode: number; signal?: number } {
  return signal === undefined ? { exitCode: code ?? 255 } : { exitCode: 128 + signal, signal };
}

