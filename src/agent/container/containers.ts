import { PodvmError } from '#base/errors.ts';
import { limits } from '#wire/limits.ts';
import type { ContainerParams, ExecParams } from '#wire/container-params.ts';
import type { Answer, Params, ProcessExit } from '#wire/messages.ts';
import type { ChangedResources } from '#wire/pod-params.ts';
import type { Channel } from '../channel/channel.ts';
import { open, signals } from '#engine/constants.ts';
import { codeOf, type ChildExit, type Engine } from '#engine/engine.ts';
import { openStreams, resetStreams } from '../io/process-io.ts';
import type { Disks } from '../volume/disks.ts';
import type { Projects } from '../volume/projects.ts';
import type { Volumes } from '../volume/volumes.ts';
import { checkKeptArguments, execProcess } from './arguments.ts';
import { type Cgroups, podCgroup } from './cgroups.ts';
import type { Children } from '../process/children.ts';
import { poll } from '../process/poll.ts';
import { type Crun, type CrunCall, crunStateRoot } from './crun.ts';
import { withoutUsualRules } from './device-program.ts';
import { containerDevices } from './devices.ts';
import { Entrance, type Entry } from './enter-container.ts';
import type { MountedContainer } from './find-mounts.ts';
import { launch, type Process } from './launch.ts';
import { measureCgroup } from './measure.ts';
import { ociConfig, type OciProcess, ociProcess } from './oci-config.ts';
import { OomWatch } from './oom-watch.ts';
import type { PodUsers } from './pod-users.ts';
import { measureProcesses, softLimitsOf } from './processes.ts';
import { readStart } from './read-start.ts';
import { rehearse } from './rehearsal.ts';
import { Rootfs } from './rootfs.ts';
import { readTerminationLog, TerminationMessages } from './termination-messages.ts';
import { resolveUser } from './users.ts';

export interface ContainersParts {
  readonly engine: Engine;
  readonly channel: Channel;
  readonly children: Children;
  readonly cgroups: Cgroups;
  readonly disks: Disks;
  readonly volumes: Volumes;
  readonly projects: Projects;
  /** Undefined when the guest has no crun. */
  readonly crun: Crun | undefined;
  /** Program for containers with no devices of their own; undefined: crun loads one for each. */
  readonly usualDevicesFd: number | undefined;
}

/** Settings that all containers of the pod share; known once the guest is configured. */
export interface PodContext {
  readonly hostname: string;
  /** First process of the shared pid namespace, if there is one. */
  readonly pidNamespaceOf: number | undefined;
  /** Set for a pod with a user namespace. */
  readonly users: PodUsers | undefined;
  /** The host's wall clock, by the agent's monotonic one: containers that set the guest's clock do not change it. */
  readonly hostMs: () => number;
}

interface Container {
  readonly params: ContainerParams;
  readonly process: OciProcess;
  readonly rootfs: Rootfs;
  readonly cgroup: string;
  readonly first: Process;
  readonly execs: Map<string, Process>;
  readonly memory: OomWatch;
  startedAtMs?: number;
  exit?: ProcessExit;
}

const killPollMs = 10;
const killDeadlineMs = 5000;

/** The pod's containers: crun makes their processes, and the agent, as their parent, gets their exits. */
export class Containers {
  readonly #parts: ContainersParts;
  readonly #entrance: Entrance;
  readonly #terminationMessages: TerminationMessages;
  readonly #containers = new Map<string, Container>();
  /** Containers being created, by id. `isUnwanted`: removed during the creation. */
  readonly #creating = new Map<string, { isUnwanted: boolean }>();
  /** Starts and execs for which crun is running. */
  #launching = 0;
  #context: PodContext = { hostname: 'localhost', pidNamespaceOf: undefined, users: undefined, hostMs: () => 0 };

  constructor(parts: ContainersParts) {
    this.#parts = parts;
    this.#entrance = new Entrance(parts);
    this.#terminationMessages = new TerminationMessages(parts.engine, (event) => parts.channel.tell(event));
  }

  get isEmpty(): boolean {
    return this.#containers.size === 0 && this.#creating.size === 0;
  }

  configure(context: PodContext): void {
    this.#context = context;
  }

  /** Creates a container after `prepare`, which may take a while. Errors: `cancelled` if it is removed before. */
  async create(params: ContainerParams, prepare: () => Promise<void>): Promise<Answer<'createContainer'>> {
    const { engine, channel, disks, volumes, projects } = this.#parts;
    const { id } = params;
    if (this.#containers.has(id) || this.#creating.has(id))
      throw new PodvmError('alreadyExists', `Cannot create container ${id}: it exists`);
    if (this.#containers.size >= limits.maxContainers)
      throw new PodvmError('exhausted', 'Cannot create container: too many');
    checkKeptArguments([params, ...[...this.#containers.values()].map((container) => container.params)]);
    const crun = this.#crun();
    const startedMs = engine.monotonicMs();
    const streams = openStreams(channel, params.stdio);
    const creation = { isUnwanted: false };
    const unwanted = () => new PodvmError('cancelled', `Cannot create container ${id}: it was removed`);
    this.#creating.set(id, creation);
    let rootfs: Rootfs | undefined;
    try {
      await prepare();
      if (creation.isUnwanted) throw unwanted();
      const { users } = this.#context;
      rootfs = new Rootfs(engine, disks, projects, params, users);
      const user = resolveUser(engine, rootfs.rootFd, params.process);
      users?.check(user);
      const cgroup = `${podCgroup}/${id}`;
      const config = ociConfig({
        params,
        user,
        hostname: this.#context.hostname,
        mounts: rootfs.mounts(params, volumes),
        pidNamespaceOf: this.#pidNamespaceOf(params),
        users,
        cgroupPath: cgroup,
        devices: withoutUsualRules(this.#parts, cgroup, containerDevices(engine, disks, { params, user, users })),
      });
      engine.writeFile(`${rootfs.bundle}/config.json`, JSON.stringify(config), 0o600);
      const preparedMs = engine.monotonicMs();
      const { bundle } = rootfs;
      const { tty } = params;
      const size = { ...params, keepsOutput: true };
      const onExit = (exit: ChildExit) => this.#containerExited(id, exit);
      const start = (fds: CrunCall['fds']) => crun.create({ id, bundle, fds, tty });
      const first = await launch(this.#parts, start, { tty, size, streams, onExit });
      rootfs.unpin();
      const container: Container = {
        params,
        process: ociProcess(params, user, this.#context.hostname),
        rootfs,
        cgroup,
        first,
        execs: new Map(),
        memory: new OomWatch(this.#parts, cgroup, () => channel.tell({ kind: 'oomKilled', containerId: id })),
      };
      this.#containers.set(id, container);
      if (params.terminationLogPath !== undefined) this.#terminationMessages.watch(id, rootfs.terminationLog);
      const early = this.#earlyExits.get(id);
      if (early !== undefined) this.#containerExited(id, early);
      const phases = [
        { name: 'prepare', ms: preparedMs - startedMs },
        { name: 'crun', ms: engine.monotonicMs() - preparedMs },
      ];
      return { pid: first.pid, uid: user.uid, gid: user.gid, groups: [...user.additionalGids], phases };
    } catch (error) {
      resetStreams(streams);
      rootfs?.remove();
      engine.removeTree(`${crunStateRoot}/${id}`);
      this.#parts.cgroups.kill(`${podCgroup}/${id}`);
      this.#parts.cgroups.remove(`${podCgroup}/${id}`);
      throw creation.isUnwanted ? unwanted() : error;
    } finally {
      this.#creating.delete(id);
      this.#earlyExits.delete(id);
    }
  }

  /** See `rehearse()`. */
  async rehearse(params: ContainerParams): Promise<void> {
    await rehearse({ ...this.#parts, crun: this.#crun() }, params);
  }

  /** Process whose pids the container shares; undefined: it has its own. */
  #pidNamespaceOf({ id, ownPidNamespace, pidNamespaceOf }: ContainerParams): number | undefined {
    if (pidNamespaceOf === undefined) return ownPidNamespace === true ? undefined : this.#context.pidNamespaceOf;
    const { first } = this.#find(pidNamespaceOf);
    if (!first.hasExited) return first.pid;
    throw new PodvmError('failedPrecondition', `Cannot create container ${id}: ${pidNamespaceOf} has exited`);
  }

  /** Exits of containers that ended before `create` had registered them. */
  readonly #earlyExits = new Map<string, ChildExit>();

  start(id: string): { startedAtMs: number } {
    const container = this.#find(id);
    const startedAtMs = this.#context.hostMs();
    this.#crun().start(id);
    container.startedAtMs = startedAtMs;
    return { startedAtMs };
  }

  async exec(params: ExecParams): Promise<{ pid: number }> {
    this.#launching += 1;
    try {
      return await this.#exec(params);
    } finally {
      this.#launching -= 1;
    }
  }

  async #exec(params: ExecParams): Promise<{ pid: number }> {
    const { engine, channel } = this.#parts;
    const container = this.#find(params.containerId);
    if (container.first.hasExited)
      throw new PodvmError('failedPrecondition', `Cannot exec in ${params.containerId}: it has exited`);
    if (container.execs.has(params.execId))
      throw new PodvmError('alreadyExists', `Cannot exec ${params.execId}: it exists`);
    const running = [...this.#containers.values()].reduce((sum, { execs }) => sum + execs.size, 0);
    if (running >= limits.maxExecs) throw new PodvmError('exhausted', `Cannot exec: ${limits.maxExecs} are running`);
    const streams = openStreams(channel, params.stdio);
    try {
      const entry: Entry = {
        params: container.params,
        process: execProcess(container.process, params),
        firstPid: container.first.pid,
        cgroup: container.cgroup,
        hasOwnUsers: this.#context.users !== undefined,
        planPath: `${container.rootfs.bundle}/exec-${params.execId}`,
      };
      let early: ChildExit | undefined;
      let isListed = false;
      const size = { ...params, keepsOutput: false };
      const onExit = (exit: ChildExit) => {
        if (isListed) this.#execExited(container, params.execId, exit);
        else early = exit;
      };
      const start = (fds: CrunCall['fds']) => this.#entrance.enter(entry, fds);
      const process = await launch(this.#parts, start, { tty: params.tty, size, streams, onExit });
      container.execs.set(params.execId, process);
      isListed = true;
      if (early !== undefined) {
        const exit = early;
        engine.setTimer(0, () => this.#execExited(container, params.execId, exit)); // after the answer with the pid
      }
      return { pid: process.pid };
    } catch (error) {
      resetStreams(streams);
      throw error;
    }
  }

  signal({ id, signal, all }: Params<'signalContainer'>): void {
    const container = this.#containers.get(id);
    if (container === undefined) throw new PodvmError('notFound', `Cannot signal container ${id}: there is none`);
    const everyone = all === true ? this.#parts.cgroups.pidsBelow(container.cgroup) : undefined;
    const pids = everyone ?? [container.first.pid];
    if (all !== true && container.first.hasExited) return;
    for (const pid of pids) this.#kill(pid, signal);
  }

  signalExec({ containerId, execId, signal }: Params<'signalExec'>): void {
    const process = this.#find(containerId).execs.get(execId);
    if (process !== undefined && !process.hasExited) this.#kill(process.pid, signal);
  }

  update(id: string, resources: ChangedResources): void {
    this.#parts.cgroups.limit(this.#find(id).cgroup, resources);
  }

  resize({ containerId, execId, columns, rows }: Params<'resize'>): void {
    const container = this.#find(containerId);
    const process = execId === undefined ? container.first : container.execs.get(execId);
    process?.io.resize(columns, rows);
  }

  attach({ containerId, execId, stdio, from }: Params<'attach'>): void {
    const container = this.#find(containerId);
    const process = execId === undefined ? container.first : container.execs.get(execId);
    if (process === undefined) throw new PodvmError('notFound', `Cannot attach to exec ${execId}: it has ended`);
    if (from !== undefined) process.io.checkFrom(from);
    const streams = openStreams(this.#parts.channel, stdio);
    this.#parts.engine.setTimer(0, () => process.io.attach(streams, from)); // the answer does not wait for the output
  }

  /** Waits for creations and starts in progress, which would otherwise finish later and be missing from the list. */
  async list(): Promise<Answer<'list'>['containers']> {
    const isSettled = () => (this.#creating.size === 0 && this.#launching === 0) || undefined;
    await poll(this.#parts.engine, isSettled, { everyMs: killPollMs });
    return [...this.#containers].map(([id, { first, execs, startedAtMs, exit }]) => ({
      id,
      pid: first.pid,
      ...(startedAtMs === undefined ? {} : { startedAtMs }),
      ...(exit === undefined ? {} : { exit }),
      execs: [...execs].map(([execId, { pid }]) => ({ execId, pid })),
    }));
  }

  /** Removes a container, and ends its creation if that is in progress. */
  async remove(id: string): Promise<void> {
    const { cgroups, engine, crun } = this.#parts;
    const untilEnded = async (isEnded: () => boolean) => {
      const timing = { everyMs: killPollMs, forMs: killDeadlineMs };
      if ((await poll(engine, () => isEnded() || undefined, timing)) !== undefined) return;
      throw new PodvmError('timeout', `Cannot remove container ${id}: its processes do not end`);
    };
    const creation = this.#creating.get(id);
    if (creation !== undefined) creation.isUnwanted = true;
    crun?.endCreation(id);
    await untilEnded(() => !this.#creating.has(id));
    const container = this.#containers.get(id);
    if (container === undefined) return;
    cgroups.kill(container.cgroup);
    await untilEnded(() => !cgroups.isPopulated(container.cgroup));
    this.#containers.delete(id);
    this.#terminationMessages.forget(id);
    for (const { io } of [container.first, ...container.execs.values()]) io.close();
    container.memory.close();
    cgroups.remove(container.cgroup);
    engine.removeTree(`${crunStateRoot}/${id}`);
    container.rootfs.remove();
  }

  readFile({ containerId, path, maxBytes }: Params<'readFile'>): { data: string; truncated: boolean } {
    const { engine } = this.#parts;
    const { params, rootfs } = this.#find(containerId);
    if (path === params.terminationLogPath) return readTerminationLog(engine, rootfs.terminationLog, maxBytes);
    return readStart(engine, this.#openInRoot(rootfs.rootFd, path), maxBytes);
  }

  #openInRoot(root: number, path: string): number {
    try {
      return this.#parts.engine.openBeneath(root, path, open.readOnly | open.nonBlock);
    } catch (cause) {
      throw new PodvmError('notFound', `Cannot read a file of the container: ${codeOf(cause)}`, { cause });
    }
  }

  stats(): Answer<'stats'>['containers'] {
    return [...this.#containers].map(([id, { cgroup, rootfs }]) => {
      const layer = rootfs.use();
      return { id, ...this.#parts.cgroups.figures(cgroup), ...(layer === undefined ? {} : { layer }) };
    });
  }

  /** Errors: `notFound`. */
  metrics(id: string): Answer<'metrics'> {
    const { cgroups, engine } = this.#parts;
    const { cgroup, rootfs, first } = this.#find(id);
    const processes = measureProcesses(engine, cgroups.pidsBelow(cgroup));
    const layer = rootfs.space();
    return {
      ...measureCgroup(engine, cgroups, cgroup),
      ulimits: first.hasExited ? [] : softLimitsOf(engine, first.pid),
      ...(processes === undefined ? {} : { processes }),
      ...(layer === undefined ? {} : { layer }),
    };
  }

  /** Errors: `notFound`. */
  mountsOf(id: string): MountedContainer {
    const { params, first, rootfs } = this.#find(id);
    return { pid: first.pid, root: rootfs.rootFd, mounts: params.mounts };
  }

  /** Sends SIGTERM to all, and SIGKILL after `graceMs`. */
  async stopAll(graceMs: number): Promise<void> {
    const { engine, cgroups } = this.#parts;
    for (const { first } of this.#containers.values()) if (!first.hasExited) this.#kill(first.pid, signals.terminate);
    const giveUpMs = engine.monotonicMs() + graceMs;
    const haveEnded = () => [...this.#containers.values()].every(({ first }) => first.hasExited);
    await poll(engine, () => haveEnded() || engine.monotonicMs() >= giveUpMs || undefined, { everyMs: killPollMs });
    cgroups.kill(podCgroup);
  }

  #containerExited(id: string, exit: ChildExit): void {
    const container = this.#containers.get(id);
    if (container === undefined) {
      if (this.#creating.has(id)) this.#earlyExits.set(id, exit);
      return;
    }
    // Without a pid namespace of its own, a container's other processes do not die with the first.
    this.#parts.cgroups.kill(container.cgroup);
    container.memory.look();
    this.#tellExit(container, undefined, exit);
  }

  #execExited(container: Container, execId: string, exit: ChildExit): void {
    container.execs.delete(execId);
    this.#tellExit(container, execId, exit);
  }

  #tellExit(container: Container, execId: string | undefined, exit: ChildExit): void {
    const ended: ProcessExit = {
      exitCode: exit.code ?? 128 + (exit.signal ?? 0),
      ...(exit.signal === undefined ? {} : { signal: exit.signal }),
      oomKilled: exit.signal === signals.kill && container.memory.hasKilled,
      finishedAtMs: this.#context.hostMs(),
    };
    if (execId === undefined) container.exit = ended;
    const whose = { containerId: container.params.id, ...(execId === undefined ? {} : { execId }) };
    this.#parts.channel.tell({ kind: 'exited', ...whose, ...ended });
  }

  #kill(pid: number, signal: number): void {
    try {
      this.#parts.engine.kill(pid, signal);
    } catch (error) {
      if (codeOf(error) !== 'ESRCH') throw error; // it has just ended
    }
  }

  #crun(): Crun {
    if (this.#parts.crun !== undefined) return this.#parts.crun;
    throw new PodvmError('unsupported', 'Cannot run containers: this guest has no crun');
  }

  #find(id: string): Container {
    const container = this.#containers.get(id);
    if (container === undefined) throw new PodvmError('notFound', `Cannot use container ${id}: there is none`);
    return container;
  }
}
