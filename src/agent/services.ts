import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import {
  type ToldMessage,
  type CallMessage,
  type Hello,
  type Method,
  type Params,
  protocolVersions,
  type Answer,
  type ToldWelcome,
} from '#wire/messages.ts';
import { readCall } from '#wire/params.ts';
import { Drivers } from './boot/drivers.ts';
import type { Guest } from './boot/guest.ts';
import { Channel } from './channel/channel.ts';
import { Cgroups, podCgroup } from './container/cgroups.ts';
import { Children } from './process/children.ts';
import { Containers } from './container/containers.ts';
import { Crun } from './container/crun.ts';
import { findMounts } from './container/find-mounts.ts';
import { measureCgroup, withDisk } from './container/measure.ts';
import { PodUsers } from './container/pod-users.ts';
import { writeEtcFiles } from './container/rootfs.ts';
import type { Engine } from '#engine/engine.ts';
import { examine } from './examine.ts';
import { ask } from './io/ask.ts';
import { dial } from './io/dial.ts';
import { Nic } from './interfaces/configure-network.ts';
import { Phases } from '#base/phases.ts';
import { Disks } from './volume/disks.ts';
import { interfaceCounters } from './interfaces/interface-counters.ts';
import { MappedViews } from './volume/mapped-views.ts';
import { Projects } from './volume/projects.ts';
import { Pushes } from './volume/pushes.ts';
import { Shares } from './volume/shares.ts';
import { Volumes } from './volume/volumes.ts';

const agentVersion = '0.2.0';
const maxErrorChars = 4000;
/** Of the error in `list`, which shares its message with much else. */
const maxFailureChars = 1000;
/** Delay between the answer to `shutdown` and the end, in `ms`, in which the answer leaves the guest. */
const farewellMs = 50;
const killSignal = 9;
/** Time after which a call is named in the console, in `ms`. */
const slowCallMs = 1000;

/** Serves the host over the channel; never throws. */
export function startServices(engine: Engine, channelFd: number, guest: Guest): void {
  const services = new Services(engine, channelFd, guest);
  for (const failure of guest.failures) services.warn(failure);
}

type Handlers = { readonly [M in Method]: (params: Params<M>) => Answer<M> | Promise<Answer<M>> };

class Services {
  readonly #engine: Engine;
  readonly #guest: Guest;
  readonly #channel: Channel;
  readonly #disks: Disks;
  readonly #shares: Shares;
  readonly #volumes: Volumes;
  readonly #pushes: Pushes;
  readonly #cgroups: Cgroups;
  readonly #containers: Containers;
  readonly #nic: Nic;
  readonly #drivers: Drivers;
  readonly #views: MappedViews;
  #isConfigured = false;
  #hostname = '';
  #pausePid: number | undefined;
  #users: PodUsers | undefined;
  /** The last `connect`: settles with how it ended. */
  #connection: Promise<Answer<'list'>['connection']> = Promise.resolve(undefined);

  constructor(engine: Engine, channelFd: number, guest: Guest) {
    this.#engine = engine;
    this.#guest = guest;
    const children = new Children(engine);
    this.#views = new MappedViews(engine);
    this.#disks = new Disks(engine, this.#views, children);
    this.#drivers = new Drivers({
      engine,
      children,
      disks: this.#disks,
      loadModule: guest.loadModule,
      warn: (text) => this.warn(text),
    });
    this.#nic = new Nic(engine, children);
    this.#shares = new Shares({
      engine,
      children,
      loadModule: (name) => guest.loadModule(name),
      warn: (text) => this.warn(text),
    });
    const projects = new Projects(engine);
    const needs = { disks: this.#disks, shares: this.#shares, views: this.#views, projects };
    this.#volumes = new Volumes(engine, needs);
    this.#pushes = new Pushes(engine);
    this.#cgroups = new Cgroups(engine);
    this.#channel = new Channel(engine, channelFd, {
      hello: (hello) => this.#welcome(hello),
      call: (call, reply) => this.#answer(call, reply),
      ended: () => {
        if (!guest.isMachine) engine.exit(0);
      },
    });
    this.#containers = new Containers({
      engine,
      channel: this.#channel,
      children,
      cgroups: this.#cgroups,
      disks: this.#disks,
      volumes: this.#volumes,
      projects,
      crun: guest.crunFd === undefined ? undefined : new Crun(engine, children, guest.crunFd),
      usualDevicesFd: guest.usualDevicesFd,
    });
  }

  warn(text: string): void {
    this.#channel.tell({ kind: 'log', level: 'warn', text: text.slice(0, 2000) });
  }

  #welcome(hello: Hello): ToldWelcome {
    return {
      t: 'welcome',
      version: protocolVersions.find((version) => hello.versions.includes(version)) ?? 0,
      agentVersion,
      engine: this.#engine.engineName,
      phases: [...this.#guest.phases],
      configured: this.#isConfigured,
      takesPrograms: true,
    };
  }

  /** Reports any error of a call to the caller, so that the agent survives; `catch {}` would miss an interruption. */
  #answer(call: CallMessage, reply: (message: ToldMessage) => void): void {
    const beganMs = this.#engine.monotonicMs();
    this.#call(call.method, call.params)
      .then((value) => {
        reply({ t: 'result', id: call.id, value });
        const ms = Math.round(this.#engine.monotonicMs() - beganMs);
        if (ms > slowCallMs) this.#print(call, `took ${ms} ms`);
      })
      .catch((error: unknown) => {
        reply({ t: 'error', id: call.id, kind: kindOf(error), message: messageOf(error).slice(0, maxErrorChars) });
        this.#print(call, `failed (${kindOf(error)})`);
      });
  }

  /** Prints a line to the console by which a log of the guest and the host's can be read together. */
  #print({ method, request }: CallMessage, outcome: string): void {
    if (request !== undefined) this.#engine.print(`call ${method} ${outcome}, request ${request}`);
  }

  async #call(method: string, params: unknown): Promise<unknown> {
    const call = readCall(method, params);
    // SAFE: these parameters are of this method
    return await (this.#handlers[call.method] as (params: unknown) => unknown)(call.params);
  }

  readonly #handlers: Handlers = {
    configure: (params) => this.#configure(params),
    connect: (params) => this.#connect(params),
    attachDisk: async (params) => ({ phases: await this.#disks.attach(params) }),
    detachDisk: async ({ serial }) => done(await this.#disks.detach(serial)),
    growDisk: async ({ serial, sizeBytes }) => done(await this.#disks.grow(serial, sizeBytes)),
    prepareShares: () => done(this.#shares.prepare()),
    rehearse: async (params) => done(await this.#containers.rehearse(params)),
    createVolume: async (params) => done(await this.#volumes.create(params)),
    beginPush: ({ volume }) => ({ push: this.#pushes.begin(this.#volumes.find(volume)) }),
    pushFile: (params) => done(this.#pushes.file(params)),
    commitPush: ({ push }) => done(this.#pushes.commit(push)),
    abortPush: ({ push }) => done(this.#pushes.abort(push)),
    removeVolume: async ({ name }) => done(await this.#volumes.remove(name)),
    createContainer: async (params) => {
      const prepare = () => this.#drivers.beforeContainer(params, { hasOwnUsers: this.#users !== undefined });
      const created = await this.#containers.create(params, prepare);
      await this.#drivers.beforeStart(); // crun takes as long
      return created;
    },
    startContainer: async ({ id }) => this.#containers.start(id),
    signalContainer: (params) => done(this.#containers.signal(params)),
    updatePod: ({ resources }) => done(this.#cgroups.limit(podCgroup, resources)),
    updateContainer: ({ id, resources }) => done(this.#containers.update(id, resources)),
    removeContainer: async ({ id }) => done(await this.#containers.remove(id)),
    readFile: (params) => this.#containers.readFile(params),
    startExec: (params) => this.#containers.exec(params),
    attach: (params) => done(this.#containers.attach(params)),
    signalExec: (params) => done(this.#containers.signalExec(params)),
    resize: (params) => done(this.#containers.resize(params)),
    dial: async (params) => done(await dial(this.#engine, this.#channel, params)),
    stats: () => this.#stats(),
    metrics: ({ containerId }) =>
      containerId === undefined ? this.#podMetrics() : this.#containers.metrics(containerId),
    ask: (params) => ask(this.#engine, params),
    examine: () => examine(this.#engine, this.#volumes),
    examineMounts: ({ containerId }) => ({ mounts: findMounts(this.#engine, this.#containers.mountsOf(containerId)) }),
    list: async () => {
      const [containers, connection] = await Promise.all([this.#containers.list(), this.#connection]);
      const { names: volumes } = this.#volumes;
      return { containers, volumes, disks: this.#disks.serials, ...(connection === undefined ? {} : { connection }) };
    },
    ping: () => ({ uptimeMs: this.#engine.monotonicMs() }),
    shutdown: ({ graceMs }) => this.#shutdown(graceMs),
  };

  #configure(params: Params<'configure'>): Answer<'configure'> {
    if (!this.#containers.isEmpty) {
      throw new PodvmError('failedPrecondition', 'Cannot configure the guest: it has containers');
    }
    if (this.#users !== undefined) {
      throw new PodvmError('failedPrecondition', "Cannot configure the guest: it has a pod's user namespace already");
    }
    this.#isConfigured = true;
    this.#connection = Promise.resolve(undefined);
    this.#hostname = params.hostname;
    const phases = new Phases(() => this.#engine.monotonicMs());
    const bootedAtMs = params.realtimeMs - this.#engine.monotonicMs();
    phases.run('clock', () => this.#engine.setRealtimeMs(params.realtimeMs));
    phases.run('entropy', () => this.#engine.addEntropy(this.#engine.decodeBase64(params.entropy)));
    phases.run('users', () => this.#holdNamespaces(params));
    phases.run('names', () => {
      this.#engine.setHostname(params.hostname);
      this.#engine.makeDirectories('/etc');
      this.#engine.writeFile('/etc/machine-id', `${params.machineId}\n`);
    });
    if (params.sctp === true) phases.run('sctp', () => this.#drivers.load('sctp')); // before its sysctls
    this.#drivers.use(params.kernelModules ?? 'open');
    this.#containers.configure({
      hostname: params.hostname,
      pidNamespaceOf: params.sharePidNamespace ? this.#pausePid : undefined,
      users: this.#users,
      hostMs: () => bootedAtMs + this.#engine.monotonicMs(),
    });
    return { phases: phases.done };
  }

  async #connect(params: Params<'connect'>): Promise<Answer<'connect'>> {
    if (!this.#isConfigured || !this.#containers.isEmpty) {
      throw new PodvmError('failedPrecondition', 'Cannot connect the guest: it is not configured, or has containers');
    }
    const connecting = this.#connectNow(params);
    this.#connection = connecting.then(
      () => ({}),
      (error: unknown) => ({ failure: messageOf(error).slice(0, maxFailureChars) }),
    );
    return await connecting;
  }

  /** Has written what containers have of the host when it waits for the first time: they can be made from then on. */
  async #connectNow({
    etcHosts,
    resolvConf,
    network,
    sysctls,
    resources,
  }: Params<'connect'>): Promise<Answer<'connect'>> {
    const phases = new Phases(() => this.#engine.monotonicMs());
    const connecting = network === null ? undefined : phases.wait('network', () => this.#nic.configure(network));
    const settled = Promise.allSettled([connecting]); // waits for the NIC whatever fails here
    try {
      phases.run('hosts', () => {
        const files = { hosts: etcHosts, hostname: this.#hostname, resolvConf };
        for (const file of writeEtcFiles(this.#engine, files)) this.#users?.own(file);
      });
      phases.run('limits', () => this.#cgroups.limit(podCgroup, resources));
    } finally {
      await settled;
    }
    await connecting;
    phases.run('sysctls', () => {
      for (const [name, value] of Object.entries(sysctls)) this.#setSysctl(name, value);
    });
    return { phases: phases.done };
  }

  /** Starts a process that only holds the namespaces that the pod's containers share. */
  #holdNamespaces({ userNamespace, sharePidNamespace }: Params<'configure'>): void {
    if (this.#pausePid !== undefined) this.#engine.kill(this.#pausePid, killSignal);
    this.#pausePid = undefined;
    if (userNamespace !== undefined) {
      this.#users = new PodUsers(this.#engine, this.#nic, userNamespace, sharePidNamespace);
      this.#pausePid = this.#users.pid;
      this.#views.use(this.#users.pid);
    } else if (sharePidNamespace) {
      this.#pausePid = this.#engine.spawnPause(true);
    }
  }

  #setSysctl(name: string, value: string): void {
    if (!/^[A-Za-z0-9_.-]+$/.test(name) || name.includes('..')) {
      throw new PodvmError('invalid', 'Cannot set a sysctl: its name is invalid');
    }
    try {
      const file = `/proc/sys/${name.replaceAll('.', '/')}`;
      if (this.#users === undefined) this.#engine.writeExisting(file, value);
      else this.#users.writeSysctl(file, value);
    } catch (cause) {
      throw new PodvmError('invalid', `Cannot set sysctl ${name}: the guest's kernel refuses it`, { cause });
    }
  }

  #stats(): Answer<'stats'> {
    const { residentKiB, heapBytes, descriptors } = this.#engine.memoryUse();
    return {
      agentRssKiB: residentKiB,
      agentHeapBytes: heapBytes,
      agentFds: descriptors,
      pod: this.#cgroups.figures(podCgroup),
      containers: this.#containers.stats(),
      volumes: this.#volumes.use(),
      interfaces: interfaceCounters(this.#engine),
    };
  }

  #podMetrics(): Answer<'metrics'> {
    const figures = measureCgroup(this.#engine, this.#cgroups, podCgroup);
    const devices = figures.devices.map((device) => withDisk(this.#engine, device));
    return { ...figures, devices, interfaces: interfaceCounters(this.#engine) };
  }

  async #shutdown(graceMs: number): Promise<Record<string, never>> {
    await this.#containers.stopAll(graceMs);
    await this.#shares.detachAll();
    this.#engine.sync();
    this.#disks.detachAll();
    this.#engine.setTimer(farewellMs, () => {
      if (this.#guest.isMachine) this.#engine.powerOff();
      else this.#engine.exit(0);
    });
    return {};
  }
}

/** The answer of a method without a result. */
function done(_nothing: void): Record<string, never> {
  return {};
}
