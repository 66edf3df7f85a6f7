import type { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import type { GuestText } from '#base/guest-text.ts';
import type {
  Container,
  ContainerExit,
  ContainerSpec,
  LimitChange,
  Resources,
  Sandbox,
  Sandboxes,
  SandboxSpec,
  SandboxStatus,
  VolumeFile,
} from '#sandbox/sandbox.ts';
import { NodeCounts } from '#sandbox/figures/node-counts.ts';
import type { ContainerStats, SandboxStats } from '#sandbox/figures/sandbox-stats.ts';
import { withChange } from '#sandbox/resources.ts';
import { fakeVersions } from '#sandbox/testing/fake-parts.ts';
import type { FakeClock } from './fake-clock.ts';
import { createFakeContainer, type FakeBehaviour, type FakeContainer } from './fake-container.ts';

export interface FakeSandboxes extends Sandboxes {
  /** `start a/0`, `resize a/0 80x25`, `update a/0 {...}`, `exit a/0 1`, `stop a/0`, `kill a/0`, `exec a/0 true`, `remove a/0`, in order. */
  readonly journal: readonly string[];
  readonly runs: readonly SandboxSpec[];
  running(): string[];
  current(name: string): FakeContainer;
  /** Ends the machine, with this last termination message of each container. */
  crash(failure: string, message?: GuestText): void;
}

export interface FakeSettings {
  /** Memory that each running container uses. */
  readonly usedBytes?: number;
  readonly behaviours?: Readonly<Record<string, FakeBehaviour>>;
  readonly runError?: PodvmError | (() => PodvmError | undefined);
  readonly warnings?: readonly string[];
  readonly onDial?: (port: number) => Duplex | undefined;
}

/** A sandbox layer without machines; `sandbox.conformance.ts` holds it to the contract in `sandbox.ts`. */
export function createFakeSandboxes(clock: FakeClock, settings: FakeSettings = {}): FakeSandboxes {
  const journal: string[] = [];
  const runs: SandboxSpec[] = [];
  const sandboxes = new Map<string, FakeSandbox>();
  let newest: FakeSandbox | undefined;
  const keyOf = (namespace: string, name: string) => `${namespace}/${name}`;
  return {
    journal,
    runs,
    async run(spec, signal) {
      if (signal.aborted) throw new PodvmError('cancelled', 'Cannot run the sandbox: cancelled');
      const { runError } = settings;
      const error = typeof runError === 'function' ? runError() : runError;
      if (error !== undefined) throw error;
      const key = keyOf(spec.namespace, spec.name);
      if (sandboxes.has(key)) throw new PodvmError('alreadyExists', `Cannot run the sandbox: ${key} exists already`);
      runs.push(spec);
      newest = new FakeSandbox(`fake-${runs.length}`, spec, {
        clock,
        settings,
        journal,
        forget: () => sandboxes.delete(key),
      });
      sandboxes.set(key, newest);
      return newest;
    },
    list: () => [...sandboxes.values()],
    waitingMachines: 0,
    memoryReserveBytes: 2 ** 29,
    starting: 0,
    counts: new NodeCounts([]),
    templateMadeAt: () => Promise.resolve(undefined),
    get: (namespace, name) => sandboxes.get(keyOf(namespace, name)),
    running: () =>
      (newest?.containers ?? []).filter(({ status }) => status.state === 'running').map(({ spec }) => spec.name),
    current(name) {
      const found = newest?.container(name);
      if (found === undefined) throw new Error(`no container ${name}`);
      return found;
    },
    crash: (why, message) => newest?.crash(why, message),
  };
}

interface Surroundings {
  readonly clock: FakeClock;
  readonly settings: FakeSettings;
  readonly journal: string[];
  readonly forget: () => void;
}

class FakeSandbox implements Sandbox {
  readonly id: string;
  readonly spec: SandboxSpec;
  readonly consolePath = '/dev/null';
  readonly ended: Promise<SandboxStatus>;
  readonly warnings: readonly string[];
  containers: FakeContainer[] = [];
  readonly #surroundings: Surroundings;
  readonly #settleEnded: (status: SandboxStatus) => void;
  #state: SandboxStatus['state'] = 'ready';
  #failure: string | undefined;
  #isRemoved = false;
  #resources: Resources;
  #isPaused = false;

  constructor(id: string, spec: SandboxSpec, surroundings: Surroundings) {
    this.id = id;
    this.spec = spec;
    this.#resources = spec.resources;
    this.#surroundings = surroundings;
    this.warnings = surroundings.settings.warnings ?? [];
    const { promise, resolve } = Promise.withResolvers<SandboxStatus>();
    this.ended = promise;
    this.#settleEnded = resolve;
  }

  async consoleTail(): Promise<readonly GuestText[]> {
    return [];
  }

  get resources(): Resources {
    return this.#resources;
  }

  get status(): SandboxStatus {
    return {
      id: this.id,
      state: this.#state,
      createdAt: new Date(this.#surroundings.clock.now()),
      addresses: ['10.88.0.5/16'],
      parts: fakeVersions,
      phases: [],
      volumes: [],
      containers: this.containers.map(({ status }) => status),
      ...(this.#failure === undefined ? {} : { failure: this.#failure }),
      ...(this.#isPaused ? { isPaused: true as const } : {}),
    };
  }

  get state(): SandboxStatus['state'] {
    return this.#state;
  }

  async createContainer(spec: ContainerSpec): Promise<Container> {
    this.#assertReady('create a container');
    const { settings, clock, journal } = this.#surroundings;
    const { name, attempt } = spec;
    if (this.containers.some((one) => !one.isRemoved && one.spec.name === name && one.spec.attempt === attempt))
      throw new PodvmError('alreadyExists', `Cannot create container ${name}: it exists already`);
    const behaviour = settings.behaviours?.[name] ?? {};
    const error = behaviour.createError?.(attempt);
    if (error !== undefined) throw error;
    const container = createFakeContainer(spec, behaviour, clock, journal);
    this.containers.push(container);
    return container;
  }

  container(name: string): FakeContainer | undefined {
    return this.containers.findLast(({ spec }) => spec.name === name);
  }

  async resize(changed: LimitChange): Promise<readonly string[]> {
    this.#assertReady('resize');
    this.#surroundings.journal.push(`resize sandbox ${JSON.stringify(changed)}`);
    this.#resources = withChange(this.#resources, changed);
    return [];
  }

  async updateVolume(name: string, files: readonly VolumeFile[]): Promise<void> {
    this.#assertReady('update a volume');
    const kind = this.spec.volumes.find((volume) => volume.name === name)?.kind;
    for (const { path, bytes } of kind === 'push' ? files : [])
      this.#surroundings.journal.push(`update ${name}/${path}: ${Buffer.from(bytes).toString()}`);
    if (kind === 'push') return;
    throw new PodvmError(
      kind === undefined ? 'notFound' : 'failedPrecondition',
      `Cannot update volume ${name}: no push`,
    );
  }

  async setPaused(isPaused: boolean): Promise<void> {
    this.#assertReady('pause', false);
    this.#isPaused = isPaused;
  }

  async dial(port: number): Promise<Duplex> {
    this.#assertReady('connect');
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      throw new PodvmError('invalid', `Cannot connect to port ${port}: a port is from 1 to 65535`);
    const socket = this.#surroundings.settings.onDial?.(port);
    if (socket === undefined) throw new PodvmError('unavailable', `Cannot connect to port ${port}: refused`);
    return socket;
  }

  async stats(): Promise<SandboxStats> {
    this.#assertReady('measure');
    const usedOf = ({ status: { id, name } }: FakeContainer): ContainerStats => ({
      ...{ id, name, ...figures, oomKills: 0 },
      memoryBytes: this.#surroundings.settings.usedBytes ?? 0,
    });
    return {
      ...{ agentRssKiB: 0, agentFds: 0, ...figures, volumes: [], interfaces: [] },
      containers: this.containers.filter(({ status }) => status.state === 'running').map(usedOf),
    };
  }

  async metrics(): Promise<never> {
    this.#assertReady('measure');
    throw new PodvmError('unsupported', 'Cannot measure: this sandbox is a fake');
  }

  async vmmPssKiB(): Promise<number> {
    this.#assertReady('measure');
    return 0;
  }

  async hostFigures(): Promise<never> {
    this.#assertReady('measure');
    throw new PodvmError('unsupported', 'Cannot measure: this sandbox is a fake');
  }

  async dropped(): Promise<ReadonlyMap<string, number>> {
    this.#assertReady('measure');
    return new Map();
  }

  async examine(): Promise<never> {
    this.#assertReady('examine');
    throw new PodvmError('unsupported', 'Cannot examine: this sandbox is a fake');
  }

  onDiskTrouble(): void {}

  async stop(): Promise<SandboxStatus> {
    if (this.#state === 'ready') {
      this.#surroundings.journal.push('stop sandbox');
      this.#end('stopped', 'Error');
    }
    return await this.ended;
  }

  async remove(): Promise<void> {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    this.#end('stopped', 'Error');
    this.#surroundings.journal.push('remove sandbox');
    this.containers = [];
    this.#surroundings.forget();
  }

  crash(why: string, message?: GuestText): void {
    this.#failure ??= this.#state === 'ready' ? why : undefined;
    const texts = { why, ...(message === undefined ? {} : { message }) };
    this.#end('failed', 'SandboxFailed', texts);
  }

  #end(state: 'stopped' | 'failed', reason: ContainerExit['reason'], texts: Parameters<FakeContainer['exit']>[2] = {}) {
    if (this.#state !== 'ready') return;
    this.#state = state;
    this.#isPaused = false;
    for (const container of this.containers) container.exit(137, reason, texts);
    this.#settleEnded(this.status);
  }

  #assertReady(verb: string, runs = true): void {
    if (this.#state !== 'ready')
      throw new PodvmError('failedPrecondition', `Cannot ${verb}: the sandbox is ${this.#state}`);
    if (runs && this.#isPaused) throw new PodvmError('unavailable', `Cannot ${verb}: the pod is paused`);
  }
}

const figures = {
  ...{ memoryBytes: 0, rssBytes: 0, inactiveFileBytes: 0, swapBytes: 0 },
  ...{ pageFaults: 0, majorPageFaults: 0, cpuUsec: 0, pids: 0 },
};
