import { writeFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { duplexPair, type Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import type { HeldImage, ImageConfig } from '#image/images.ts';
import type { Link } from '#link/link.ts';
import { readAsAgent } from '#link/testing/read-as-agent.ts';
import type { Attachment } from '#network/network.ts';
import type { Machine, MachineExit } from '#vm/driver.ts';
import type { GuestEvent } from '../guest-calls.ts';
import type { Parts } from '../parts.ts';

/**
 * Lower layers in memory, for tests of this one. Each step is named as it is called; `before` may hold it back or
 * make it fail. What is made is in `alive` until it is undone.
 */
export interface FakeParts extends Parts {
  readonly alive: Set<string>;
  /** Runs before each step: `driver.start`, `link.connect`, `call configure`, ... */
  before: (step: string, signal: AbortSignal) => Promise<void>;
  /** The guest of the newest machine. */
  readonly guest: FakeGuest;
  /** Ends the newest machine as a kill from outside would. */
  killMachine(reason: string): void;
  imageConfig: ImageConfig;
}

export interface FakeGuest {
  tell(event: GuestEvent): void;
  /** Ends the link, the machine lives on. */
  lose(): void;
  /** What was called, in order. */
  readonly calls: { readonly method: string; readonly params: Record<string, unknown> }[];
  /** The agent's end of a stream. */
  stream(id: number): Duplex;
  /** Overrides answers by method. */
  readonly answers: Map<string, (params: Record<string, unknown>) => unknown>;
}

export function createFakeParts(directory: string): FakeParts {
  const alive = new Set<string>();
  let kill: ((reason: string) => void) | undefined;
  let guest: ReturnType<typeof createGuest> | undefined;

  const make = async <T>(step: string, signal: AbortSignal, what: () => T): Promise<T> => {
    await parts.before(step, signal);
    return what();
  };
  const owned = (name: string) => {
    alive.add(name);
    return { [Symbol.asyncDispose]: async () => void alive.delete(name) };
  };
  const modulesDisk = join(directory, 'modules.erofs');
  const parts: FakeParts = {
    alive,
    before: async (_step, signal) => signal.throwIfAborted(),
    imageConfig: { cmd: ['run'] },
    get guest() {
      if (guest === undefined) throw new Error('no machine yet');
      return guest.control;
    },
    killMachine: (reason) => kill?.(reason),
    network: {
      prepare: (request, signal) =>
        make('network.prepare', signal, (): Attachment => ({
          sandboxId: request.sandboxId,
          netns: '/run/netns/x',
          tap: { name: 'tap0', mac: '02:00:00:00:00:01' },
          assign: () => {},
          connectAhead: (connecting) => make('network.connectAhead', connecting, () => undefined),
          connect: (connecting) => make('network.connect', connecting, () => guestNetwork),
          ...owned('attachment'),
        })),
      adopt: async () => undefined,
      collect: async () => [],
      readiness: async () => ({ isReady: true, name: 'fake', path: undefined }),
      check: async () => [],
      dropped: async () => new Map([['forged', 0]]),
      droppedPackets: async () => undefined,
    },
    makeScratchDisk: (request, signal) =>
      make('scratch', signal, () => ({ path: request.path, sizeBytes: request.sizeBytes, ...owned('scratch') })),
    makeVolumeDisk: ({ path, roomBytes }, signal) =>
      make('volume disk', signal, () => ({ path, sizeBytes: roomBytes, ...owned(`disk ${basename(path)}`) })),
    serveFiles: ({ name }, signal) =>
      make('serveFiles', signal, () => ({
        pid: 1,
        file: undefined,
        ended: new Promise(() => {}),
        ...owned(`server ${name}`),
      })),
    claimBlock: ({ path }, signal) =>
      make(`claim ${path}`, signal, () => ({
        device: { major: 7, minor: 0 },
        measure: async () => 1024 * 1024,
        ...owned(`claim ${path}`),
      })),
    modulesDisk,
    versions: fakeVersions,
    driver: {
      name: 'fake',
      adopt: async () => undefined,
      sweep: async () => undefined,
      hasTemplate: async () => true,
      makeTemplate: async () => undefined,
      start: (spec, signal) =>
        make('driver.start', signal, () => {
          writeFileSync(modulesDisk, '');
          guest = createGuest(parts, owned);
          const machine = createMachine(spec.id, spec.directory, parts, owned('machine'));
          kill = (reason) => machine.killedBy(reason);
          return machine;
        }),
    },
    connectLink: (_options, signal) =>
      make('link.connect', signal, () => {
        if (guest === undefined) throw new Error('no machine yet');
        return guest.connect();
      }),
    images: {
      hold: async (reference, _policy, signal) => {
        await parts.before('image', signal);
        if (reference === 'missing') throw new PodvmError('notFound', 'Cannot hold image missing: no such image');
        const rootfsPath = join(directory, 'images', 'rootfs.erofs');
        await mkdir(join(directory, 'images'), { recursive: true });
        await writeFile(rootfsPath, '');
        const findDamage = () => Promise.resolve(undefined);
        const image: HeldImage = {
          id: 'sha256:1',
          config: parts.imageConfig,
          rootfsPath,
          findDamage,
          ...owned('image'),
        };
        return image;
      },
    },
  };
  return parts;
}

/** As set-up would have them. */
export const fakeVersions = { key: 'k1', qemu: '1:10.0', kernel: '6.12.1', crun: '1.21', agent: 'a1' } as const;

const guestNetwork = {
  interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1500, addresses: ['10.1.0.5/24'] }],
  routes: [],
  dns: { nameservers: ['10.0.0.1'], searches: [], options: [] },
};

function createMachine(
  id: string,
  directory: string,
  parts: FakeParts,
  owner: AsyncDisposable,
): Machine & { killedBy(reason: string): void } {
  const { alive } = parts;
  const { promise: exited, resolve } = Promise.withResolvers<MachineExit>();
  let state: Machine['state'] = 'running';
  const end = async (): Promise<MachineExit> => {
    if (state === 'running') state = 'stopped';
    await owner[Symbol.asyncDispose]();
    resolve({ state: 'stopped', reason: 'it was killed', code: 'SIGKILL', tail: [] });
    return await exited;
  };
  return {
    id,
    get state() {
      return state;
    },
    accelerator: 'tcg',
    memoryMiB: 1024,
    record: { driver: 'fake', id, directory, pid: process.pid, startTicks: '1', uid: 0, memoryMiB: 1024 },
    phases: [],
    exited,
    consolePath: join(directory, 'console.log'),
    connect: () => Promise.reject(new Error('the fake link needs no channel')),
    attachDisk: (_disk, signal) => parts.before('machine.attachDisk', signal),
    detachDisk: async (serial, signal) => await parts.before(`machine.detachDisk ${serial}`, signal),
    growDisk: async (serial, _sizeBytes, signal) => await parts.before(`machine.growDisk ${serial}`, signal),
    onDiskError: () => {},
    attachPort: async (name, signal) => {
      await parts.before('machine.attachPort', signal);
      alive.add(`port ${name}`);
      return duplexPair()[0];
    },
    detachPort: async (name, signal) => {
      await parts.before('machine.detachPort', signal);
      alive.delete(`port ${name}`);
    },
    limitHost: async () => {},
    confine: async () => ({ [Symbol.asyncDispose]: () => Promise.resolve() }),
    stop: end,
    kill: end,
    [Symbol.asyncDispose]: async () => void (await end()),
    killedBy(reason) {
      state = 'failed';
      void owner[Symbol.asyncDispose]();
      resolve({ state: 'failed', reason, code: 'SIGKILL', tail: [] });
    },
  };
}

function createGuest(parts: FakeParts, owned: (name: string) => AsyncDisposable) {
  const closed = Promise.withResolvers<Error>();
  const streams = new Map<number, Duplex>();
  const streamsOfHost = new Set<Duplex>();
  let handler: ((event: GuestEvent) => void) | undefined;
  let next = 1;
  const control: FakeGuest = {
    calls: [],
    answers: new Map(),
    tell: (event) => handler?.(event),
    lose() {
      for (const stream of streamsOfHost) stream.destroy(new Error('link lost'));
      closed.resolve(new Error('torn'));
    },
    stream(id) {
      const stream = streams.get(id);
      if (stream === undefined) throw new Error(`no stream ${id}`);
      return stream;
    },
  };
  const connect = (): Link => {
    const owner = owned('link');
    return {
      welcome: {
        t: 'welcome',
        version: 1,
        agentVersion: '0',
        engine: 'fake',
        phases: [],
        configured: false,
      },
      async call(method, params, signal) {
        await parts.before(`call ${method}`, signal);
        const given: Record<string, unknown> = { ...params };
        readAsAgent(method, params);
        control.calls.push({ method, params: given });
        if (method === 'signalContainer' && given['id'] === 'exercise')
          for (const agent of streams.values()) agent.end();
        const answer: unknown = (control.answers.get(method) ?? defaultAnswers[method])?.(given);
        return answer ?? {};
      },
      openStream() {
        const [host, agent] = duplexPair();
        const id = next;
        next += 1;
        streams.set(
          id,
          agent.on('error', () => {}),
        );
        streamsOfHost.add(host);
        return Object.assign(host, { id, acknowledge: () => {} });
      },
      onEvent: (given) => {
        handler = given;
      },
      closed: closed.promise,
      async [Symbol.asyncDispose]() {
        control.lose();
        await owner[Symbol.asyncDispose]();
      },
    };
  };
  return { control, connect };
}

const defaultAnswers: Record<string, (params: Record<string, unknown>) => unknown> = {
  configure: () => ({ phases: [] }),
  connect: () => ({ phases: [] }),
  attachDisk: () => ({ phases: [] }),
  beginPush: () => ({ push: 1 }),
  createContainer: () => ({ pid: 2, uid: 0, gid: 0, groups: [], phases: [] }),
  startContainer: () => ({ startedAtMs: 1000 }),
  startExec: () => ({ pid: 3 }),
  readFile: () => {
    throw new PodvmError('notFound', 'Cannot read: no such file');
  },
};
