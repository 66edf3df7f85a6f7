import { Readable, type Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import type {
  Container,
  ContainerExit,
  ContainerSpec,
  ContainerState,
  Exec,
  OutputChunk,
  Sandbox,
  Sandboxes,
  SandboxSpec,
  SandboxStatus,
} from '#sandbox/sandbox.ts';
import { fakeVersions } from '#sandbox/testing/fake-parts.ts';
import type { FakeClock } from './fake-clock.ts';

/** What a container of a test does; everything left out does nothing. */
export interface FakeBehaviour {
  readonly createError?: (attempt: number) => PodvmError | undefined;
  readonly startError?: PodvmError;
  readonly warnings?: readonly string[];
  /** Called when it runs; may exit at once, or later by a clock. */
  readonly onStart?: (container: FakeContainer) => void;
  /** Default: exits with 143. */
  readonly onTerm?: (container: FakeContainer) => void;
  readonly onExec?: (command: readonly string[], container: FakeContainer) => number | 'hang';
}

export interface FakeContainer extends Container {
  readonly spec: ContainerSpec;
  exit(
    exitCode: number,
    reason?: ContainerExit['reason'],
    texts?: Pick<ContainerExit, 'message' | 'terminationLog'>,
  ): void;
  /** Resolves when every follower has taken it. */
  print(text: string): Promise<void>;
}

export interface FakeSandboxes extends Sandboxes {
  /** `start a/0`, `exit a/0 1`, `stop a/0`, `kill a/0`, `exec a/0 true`, `remove a/0`, in order. */
  readonly journal: readonly string[];
  readonly runs: readonly SandboxSpec[];
  running(): string[];
  current(name: string): FakeContainer;
  /** The machine dies, having told this last termination message of each container. */
  crash(failure: string, terminationLog?: string): void;
}

export interface FakeSettings {
  readonly behaviours?: Readonly<Record<string, FakeBehaviour>>;
  readonly runError?: PodvmError;
  readonly warnings?: readonly string[];
  readonly onDial?: (port: number) => Duplex | undefined;
}

/** A sandbox layer without machines, for one pod; it holds its callers to the contract in `sandbox.ts`. */
export function createFakeSandboxes(clock: FakeClock, settings: FakeSettings = {}): FakeSandboxes {
  const journal: string[] = [];
  const runs: SandboxSpec[] = [];
  let containers: FakeContainer[] = [];
  let sandbox: Sandbox | undefined;
  let state: SandboxStatus['state'] = 'ready';
  let failure: string | undefined;
  const ended = Promise.withResolvers<SandboxStatus>();
  const statusNow = (): SandboxStatus => ({
    id: 'fake',
    state,
    createdAt: new Date(clock.now()),
    addresses: ['10.88.0.5/16'],
    parts: fakeVersions,
    phases: [],
    volumes: [],
    containers: containers.map((container) => container.status),
    ...(failure === undefined ? {} : { failure }),
  });
  const end = (next: 'stopped' | 'failed', texts: Parameters<FakeContainer['exit']>[2] = {}) => {
    if (state !== 'ready') return;
    state = next;
    for (const container of containers) container.exit(137, 'SandboxFailed', texts);
    ended.resolve(statusNow());
  };
  const make = (spec: SandboxSpec): Sandbox => ({
    id: 'fake',
    spec,
    consolePath: '/dev/null',
    ended: ended.promise,
    get status() {
      return statusNow();
    },
    async createContainer(containerSpec) {
      if (state !== 'ready') throw new PodvmError('failedPrecondition', 'Cannot create: the sandbox has ended');
      const behaviour = settings.behaviours?.[containerSpec.name] ?? {};
      const error = behaviour.createError?.(containerSpec.attempt);
      if (error !== undefined) throw error;
      const container = createFakeContainer(containerSpec, behaviour, clock, journal);
      containers.push(container);
      return container;
    },
    container: (name) => containers.findLast((it) => it.spec.name === name),
    warnings: settings.warnings ?? [],
    resize: () => Promise.resolve([]),
    updateVolume: () => Promise.resolve(),
    onDiskTrouble: () => {},
    async dial(port) {
      const socket = settings.onDial?.(port);
      if (socket === undefined) throw new PodvmError('unavailable', `Cannot connect to port ${port}: refused`);
      return socket;
    },
    stats: () =>
      Promise.resolve({ agentRssKiB: 0, agentFds: 0, ...figures, containers: [], volumes: [], interfaces: [] }),
    metrics: () => Promise.reject(new PodvmError('unsupported', 'Cannot measure: this sandbox is a fake')),
    vmmPssKiB: () => Promise.resolve(0),
    dropped: () => Promise.resolve(new Map()),
    async stop() {
      if (state === 'ready') journal.push('stop sandbox');
      end('stopped');
      return statusNow();
    },
    async remove() {
      end('stopped');
      journal.push('remove sandbox');
      containers = [];
    },
  });
  return {
    journal,
    runs,
    async run(spec, signal) {
      if (signal.aborted) throw new PodvmError('cancelled', 'Cannot run the sandbox: cancelled');
      if (settings.runError !== undefined) throw settings.runError;
      runs.push(spec);
      sandbox = make(spec);
      return sandbox;
    },
    list: () => (sandbox === undefined ? [] : [sandbox]),
    waitingMachines: 0,
    get: () => sandbox,
    running: () => containers.filter((it) => it.status.state === 'running').map((it) => it.spec.name),
    current(name) {
      const found = containers.findLast((it) => it.spec.name === name);
      if (found === undefined) throw new Error(`no container ${name}`);
      return found;
    },
    crash(why, terminationLog) {
      failure = why;
      end('failed', { message: why, ...(terminationLog === undefined ? {} : { terminationLog }) });
    },
  };
}

function createFakeContainer(
  spec: ContainerSpec,
  behaviour: FakeBehaviour,
  clock: FakeClock,
  journal: string[],
): FakeContainer {
  const label = `${spec.name}/${spec.attempt}`;
  const exited = Promise.withResolvers<ContainerExit>();
  const followers = new Set<(chunk: OutputChunk) => Promise<void>>();
  const createdAt = new Date(clock.now());
  let state: ContainerState = 'created';
  let startedAt: Date | undefined;
  let printing: Promise<void> = Promise.resolve();
  const container: FakeContainer = {
    spec,
    get status() {
      const { name, attempt, image } = spec;
      const base = {
        id: label,
        name,
        attempt,
        state,
        image,
        imageId: `sha256:${name}`,
        createdAt,
        mounts: [],
        logPath: '',
      };
      return startedAt === undefined ? base : { ...base, startedAt };
    },
    exited: exited.promise,
    async start() {
      if (behaviour.startError !== undefined) {
        container.exit(127, 'StartError', { message: behaviour.startError.message });
        throw behaviour.startError;
      }
      journal.push(`start ${label}`);
      state = 'running';
      startedAt = new Date(clock.now());
      behaviour.onStart?.(container);
    },
    exit(exitCode, reason = exitCode === 0 ? 'Completed' : 'Error', texts = {}) {
      if (state === 'exited') return;
      journal.push(`exit ${label} ${exitCode}`);
      state = 'exited';
      const finishedAt = new Date(clock.now());
      exited.resolve({ exitCode, reason, finishedAt, ...texts });
    },
    print(text) {
      const chunk = { stream: 'stdout', bytes: Buffer.from(text) } as const;
      printing = printing.then(async () => {
        await Promise.all([...followers].map((follower) => follower(chunk)));
      });
      return printing;
    },
    async kill(signalNumber) {
      if (state === 'exited') return;
      journal.push(`kill ${label}`);
      container.exit(128 + signalNumber);
    },
    async stop(graceMs) {
      if (state !== 'exited') {
        journal.push(`stop ${label}`);
        if (behaviour.onTerm === undefined) container.exit(143);
        else behaviour.onTerm(container);
        const cancel = clock.after(graceMs, () => container.exit(137));
        void exited.promise.then(cancel);
      }
      return await exited.promise;
    },
    async exec({ command }) {
      if (state !== 'running') throw new PodvmError('failedPrecondition', `Cannot exec in ${label}: it is ${state}`);
      journal.push(`exec ${label} ${command.join(' ')}`);
      const code = behaviour.onExec?.(command, container) ?? 0;
      return fakeExec(code, exited.promise);
    },
    stdin: undefined,
    warnings: behaviour.warnings ?? [],
    resize: () => Promise.resolve(),
    update: () => Promise.resolve([]),
    reopenLog: () => Promise.resolve(),
    follow(onChunk) {
      followers.add(onChunk);
      return {
        ended: exited.promise.then(() => printing),
        stop: () => followers.delete(onChunk),
      };
    },
    async remove() {
      if (state !== 'exited') throw new PodvmError('failedPrecondition', `Cannot remove ${label}: it is ${state}`);
      journal.push(`remove ${label}`);
    },
  };
  return container;
}

function fakeExec(code: number | 'hang', containerExited: Promise<unknown>): Exec {
  const exited = Promise.withResolvers<{ exitCode: number }>();
  const kill = () => exited.resolve({ exitCode: 137 });
  if (code === 'hang') void containerExited.then(kill);
  else exited.resolve({ exitCode: code });
  return {
    stdout: Readable.from([]),
    stderr: Readable.from([]),
    resize: () => Promise.resolve(),
    async kill() {
      kill();
    },
    exited: exited.promise,
  };
}

const figures = {
  ...{ memoryBytes: 0, rssBytes: 0, inactiveFileBytes: 0, swapBytes: 0 },
  ...{ pageFaults: 0, majorPageFaults: 0, cpuUsec: 0, pids: 0 },
};
