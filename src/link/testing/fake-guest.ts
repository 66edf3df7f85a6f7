import type { Duplex } from 'node:stream';
import { kindOf, messageOf, PodvmError, type ErrorKind } from '#base/errors.ts';
import type { Answer, CallMessage, Method, Params, ToldEvent } from '#wire/messages.ts';
import { readCall } from '#wire/params.ts';
import { exampleWelcome, FakeAgent } from './fake-agent.ts';
import { FakeGuestContainers } from './fake-guest-containers.ts';
import { FakeStream } from './fake-stream.ts';
import { FakeGuestVolumes, type FakePlugs } from './fake-guest-volumes.ts';

/** The machine around the guest; default: a power button without effect. */
export interface FakeGuestOptions extends FakePlugs {
  readonly onPowerOff?: () => void;
}

/** An answer instead of the usual one. Undefined: no answer and no effect; an error goes to the host. */
export type FakeAnswer = (params: Record<string, unknown>) => unknown;

type Handlers = { readonly [M in Method]: (params: Params<M>) => Answer<M> };

/**
 * A guest in memory, for tests of the layers above: an agent that tracks disks, volumes, containers and commands as the
 * real one does, but runs nothing. A process runs until the test ends it, or until it is killed. It passes the same
 * conformance suites as the real agent.
 */
export class FakeGuest {
  /** The calls, in order, over all connections. */
  readonly calls: { readonly method: Method; readonly params: Record<string, unknown> }[] = [];
  /** The version of the protocol that it chooses; 0: it speaks none of the host's. */
  version: number = exampleWelcome.version;
  /** Answers by method. */
  readonly answers = new Map<Method, FakeAnswer>();
  /** What the answer of a method waits for, while its effect is there already: a promise that fails is the answer. */
  readonly delays = new Map<Method, Promise<void>>();
  readonly #options: FakeGuestOptions;
  readonly #containers = new FakeGuestContainers((event) => this.#send(event));
  readonly #volumes: FakeGuestVolumes;
  readonly #listeners = new Map<number, (connection: Duplex) => void>();
  readonly #startedMs = performance.now();
  #agent: FakeAgent | undefined;
  #epoch = 0;
  #streams = new Map<number, FakeStream>();
  #isConfigured = false;
  #hasUsers = false;
  #isHung = false;
  /** How the last `connect` ended. */
  #connection: Answer<'list'>['connection'];
  /** Settles when that is known. */
  #connecting: Promise<unknown> = Promise.resolve();

  constructor(options: FakeGuestOptions = {}) {
    this.#options = options;
    this.#volumes = new FakeGuestVolumes(options);
  }

  /** Uses the agent's end of a channel from now on. */
  serve(channel: Duplex): void {
    const agent = new FakeAgent(channel);
    agent.welcome = { ...exampleWelcome, version: this.version, configured: this.#isConfigured };
    agent.onFrame = (frame) => {
      if (agent.epoch !== this.#epoch) this.#begin(agent);
      if (frame.header.epoch === agent.epoch) this.#streams.get(frame.header.stream)?.accept(frame);
    };
    agent.onCall = (call) => {
      if (this.#isHung) return;
      const answer = () => setImmediate(() => this.#answer(agent, call)); // only after call() has returned
      if (call.method === 'list') this.#connecting.then(answer, answer);
      else answer();
    };
    this.#agent = agent;
  }

  /** Sends an event to the host, true or not. An exit event also ends the process. */
  tell(event: ToldEvent): void {
    if (event.kind === 'exited') this.#containers.exited(event);
    this.#send(event);
  }

  /** Leaves all calls unanswered from now on. */
  hang(): void {
    this.#isHung = true;
  }

  /** The agent's end of a stream that a call has named. */
  stream(id: number): Duplex {
    const stream = this.#streams.get(id);
    if (stream === undefined) throw new Error(`no stream ${id}`);
    return stream;
  }

  /** Passes the agent's end of each connection to a port of the guest to the listener. */
  listen(port: number, onConnection: (connection: Duplex) => void): void {
    this.#listeners.set(port, onConnection);
  }

  /** Settles when all sent events have arrived. */
  async told(): Promise<void> {
    while (this.#agent?.isIdle === false) {
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
  }

  #send(event: ToldEvent): void {
    this.#agent?.send({ t: 'event', event });
  }

  /** Begins another connection: the streams of the last one are gone. */
  #begin(agent: FakeAgent): void {
    this.#epoch = agent.epoch;
    for (const stream of this.#streams.values()) stream.destroy();
    this.#streams = new Map();
  }

  #answer(agent: FakeAgent, { id, method, params }: CallMessage): void {
    const fail = (error: unknown) => agent.send({ t: 'error', id, kind: kindOf(error), message: messageOf(error) });
    try {
      const value = this.#call(method, params);
      const delay = [...this.delays].find(([delayed]) => delayed === method)?.[1];
      if (delay === undefined) agent.send({ t: 'result', id, value });
      else delay.then(() => agent.send({ t: 'result', id, value }), fail);
      if (delay !== undefined && method === 'connect') this.#connectAfter(delay);
    } catch (error) {
      fail(error);
    }
    if (method === 'shutdown') setImmediate(() => this.#options.onPowerOff?.()); // only after the answer has left
  }

  #connectAfter(delay: Promise<void>): void {
    this.#connecting = delay.catch((error: unknown) => (this.#connection = { failure: messageOf(error) }));
  }

  #call(name: string, given: unknown): unknown {
    const { method, params } = readCall(name, given);
    this.calls.push({ method, params: given as Record<string, unknown> }); // SAFE: it was read as an object
    const opened = this.#open(streamsOf(method, params));
    try {
      const answer = this.answers.get(method);
      // SAFE: these parameters are of this very method
      const usual = () => (this.#handlers[method] as (params: unknown) => unknown)(params);
      if (answer === undefined) return usual();
      const value = answer(given as Record<string, unknown>); // SAFE: as above
      if (value !== undefined && makesProcess.includes(method)) usual();
      return value ?? {};
    } catch (error) {
      for (const stream of opened) stream.destroy();
      throw error;
    }
  }

  #open(ids: readonly number[]): readonly FakeStream[] {
    const agent = this.#agent;
    if (agent === undefined) throw new Error('not connected');
    return ids.map((id) => {
      if (this.#streams.get(id)?.isOver === false)
        throw refusal('alreadyExists', `Cannot open stream ${id}: it is in use`);
      const stream = new FakeStream(id, agent);
      this.#streams.set(id, stream);
      return stream;
    });
  }

  readonly #handlers: Handlers = {
    configure: ({ userNamespace }) => {
      if (!this.#containers.isEmpty || this.#hasUsers)
        throw refusal('failedPrecondition', 'Cannot configure the guest: it has containers or users');
      this.#isConfigured = true;
      this.#connection = undefined;
      if (this.#agent !== undefined)
        this.#agent.welcome = { ...exampleWelcome, version: this.version, configured: true };
      this.#hasUsers = userNamespace !== undefined;
      return { phases: [] };
    },
    connect: ({ sysctls }) => {
      if (!this.#isConfigured || !this.#containers.isEmpty)
        throw refusal('failedPrecondition', 'Cannot connect the guest: it is not configured, or has containers');
      const wrong = Object.keys(sysctls).find((key) => !/^[A-Za-z0-9_.-]+$/.test(key));
      this.#connection = wrong === undefined ? {} : { failure: 'Cannot set a sysctl: its name is invalid' };
      if (wrong !== undefined) throw refusal('invalid', 'Cannot set a sysctl: its name is invalid');
      return { phases: [] };
    },
    attachDisk: (params) => this.#volumes.attachDisk(params),
    detachDisk: ({ serial }) => this.#volumes.detachDisk(serial),
    growDisk: ({ serial }) => this.#volumes.growDisk(serial),
    prepareShares: () => ({}),
    rehearse: () => ({}),
    createVolume: (params) => this.#volumes.create(params),
    beginPush: ({ volume }) => ({ push: this.#volumes.beginPush(volume) }),
    pushFile: (params) => this.#volumes.pushFile(params),
    commitPush: ({ push }) => this.#volumes.endPush(push),
    abortPush: ({ push }) => this.#volumes.abortPush(push),
    removeVolume: ({ name }) => this.#volumes.remove(name),
    createContainer: (params) => {
      this.#volumes.check(params);
      return this.#containers.create(params, this.#opened(params.stdio));
    },
    startContainer: ({ id }) => this.#containers.start(id),
    signalContainer: (params) => this.#containers.signal(params),
    updateContainer: ({ id }) => this.#containers.check(id),
    updatePod: () => ({}),
    removeContainer: ({ id }) => this.#containers.remove(id),
    readFile: ({ containerId, path }) => {
      this.#containers.check(containerId);
      throw refusal('notFound', `Cannot read ${path} of the container: there is no such file`);
    },
    startExec: (params) => this.#containers.exec(params, this.#opened(params.stdio)),
    attach: ({ containerId }) => this.#containers.check(containerId),
    signalExec: (params) => this.#containers.signalExec(params),
    resize: ({ containerId }) => this.#containers.check(containerId),
    dial: ({ port, stream }) => {
      const listener = this.#listeners.get(port);
      if (listener === undefined)
        throw refusal('unavailable', `Cannot connect to port ${port} in the guest: ECONNREFUSED`);
      setImmediate(listener, this.stream(stream));
      return {};
    },
    stats: () => ({
      ...{ agentRssKiB: 1024, agentHeapBytes: 65_536, agentFds: 16, pod: noFigures, interfaces: [], volumes: [] },
      containers: this.#containers.ids.map((id) => ({ id, ...noFigures })),
    }),
    metrics: ({ containerId }) => {
      if (containerId !== undefined) this.#containers.check(containerId);
      return noMetrics;
    },
    ask: ({ port }) => {
      throw refusal('unavailable', `Cannot ask port ${port} from the guest: ECONNREFUSED`);
    },
    examine: () => ({ realtimeMs: Date.now(), files: {}, volumes: [] }),
    examineMounts: ({ containerId }) => {
      this.#containers.check(containerId);
      return { mounts: [] };
    },
    list: () => ({
      containers: this.#containers.list(),
      volumes: this.#volumes.names,
      disks: this.#volumes.serials,
      ...(this.#connection === undefined ? {} : { connection: this.#connection }),
    }),
    ping: () => ({ uptimeMs: performance.now() - this.#startedMs }),
    shutdown: () => {
      this.#containers.killAll();
      return {};
    },
  };

  #opened({ stdin, stdout, stderr }: Params<'createContainer'>['stdio']): readonly FakeStream[] {
    return [stdin, stdout, stderr].flatMap((id) => this.#streams.get(id) ?? []);
  }
}

/** Methods that start a process, with any answer. */
const makesProcess: readonly Method[] = ['createContainer', 'startExec'];

function streamsOf(method: Method, params: object): readonly number[] {
  const { stdio, stream } = params as { stdio?: Params<'attach'>['stdio']; stream?: number }; // SAFE: only read
  const ids = method === 'dial' ? [stream ?? 0] : stdio === undefined ? [] : [stdio.stdin, stdio.stdout, stdio.stderr];
  return ids.filter((id) => id > 0);
}

const refusal = (kind: ErrorKind, message: string) => new PodvmError(kind, message);

const noFigures = {
  ...{ memoryBytes: 0, memoryPeakBytes: 0, rssBytes: 0, inactiveFileBytes: 0, pageFaults: 0, majorPageFaults: 0 },
  ...{ swapBytes: 0, oomKills: 0, cpuUsec: 0, pids: 0 },
};

const noMetrics = {
  ...noFigures,
  ...{ cpuUserUsec: 0, cpuSystemUsec: 0, cpuPeriods: 0, cpuThrottledPeriods: 0, cpuThrottledUsec: 0 },
  ...{ cacheBytes: 0, mappedFileBytes: 0, activeFileBytes: 0, kernelBytes: 0, memoryLimitHits: 0 },
  ...{ devices: [], interfaces: [], ulimits: [] },
};
