import assert from 'node:assert/strict';
import { constants, openSync } from 'node:fs';
import { mkdir, mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { run } from '#host/process/run.ts';
import { createFakeParts, type FakeParts } from '#sandbox/testing/fake-parts.ts';
import { defaultLimits } from '#sandbox/limits.ts';
import { openSandboxes } from '#sandbox/sandboxes.ts';
import { Events } from '../schema/generated/services/ttrpc/events/v1/events_pb.ts';
import { Task } from '../schema/generated/runtime/task/v2/shim_pb.ts';
import { Keeper, recordsDirectoryOf } from '../keeper/keeper.ts';
import { serveKeeper } from '../keeper/serve-keeper.ts';
import { serveShim, type ShimOptions } from '../serve-shim.ts';
import { TtrpcClient } from '../ttrpc/client.ts';
import { serveTtrpc } from '../ttrpc/server.ts';
import { handlersOf } from '../ttrpc/service.ts';
import { containerSpec, podSpec, writeBundle } from './bundles.ts';

const soon = { ms: 60_000 };

/** The task API with fake machines behind its real socket, as containerd sees it; for tests. */
export interface ServedShim extends AsyncDisposable {
  /** State directory of the daemon. */
  readonly directory: string;
  readonly parts: FakeParts;
  readonly client: TtrpcClient;
  /** Topics of events that containerd got, in order, with the ids of their containers. */
  readonly told: readonly string[];
  /** Ids of sandboxes whose ports were forwarded, once for each time. */
  readonly forwarded: readonly string[];
  /** What holding the ports of a pod waits for, if anything. */
  readonly held: Promise<void>[];
  bundle(id: string, spec: object): Promise<string>;
  /** Ends the daemon; pods, keeper and client stay. */
  end(): Promise<void>;
  /** Starts the next daemon. */
  next(): Promise<void>;
  /** Makes FIFOs for a process, and reads its output. */
  io(name: string): Promise<TaskIo>;
  /** Makes a pod and starts it. */
  pod(spec?: object): Promise<void>;
  /** Makes a container. Returns its id in the guest. */
  created(id: string, spec?: object, io?: Partial<TaskIo['paths']>): Promise<string>;
  /** Makes a container and starts it. Returns its id in the guest. */
  container(id: string, spec?: object, io?: Partial<TaskIo['paths']>): Promise<string>;
  exit(guestId: string, exitCode: number, oomKilled?: boolean): void;
}

export interface TaskIo {
  readonly paths: { readonly stdin: string; readonly stdout: string; readonly stderr: string };
  readonly stdin: FileHandle;
  /** Reads the output to its end; the runtime must have opened it before. */
  stdout(): Promise<string>;
}

/** Without scratch disks, which the next daemon finds again, and images, which only the last one held. */
const isOfDaemon = (name: string) => name !== 'scratch' && name !== 'image';

export const rootfs = [
  { type: 'overlay', options: ['lowerdir=/snapshots/2/fs:/snapshots/1/fs', 'upperdir=/snapshots/3/fs'] },
];

export async function openShim(): Promise<ServedShim> {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-shim-'));
  // A record whose write began before the end may still be written.
  undo.defer(() => rm(directory, { recursive: true, maxRetries: 10 }));
  const parts = createFakeParts(directory);
  const socketPath = join(directory, 'shim.sock');
  const shimDirectory = join(directory, 'shim');
  undo.use(await serveKeeper(socketPath, recordsDirectoryOf(shimDirectory)));
  const limits = { ...defaultLimits, drainTimeoutMs: 200 };
  undo.defer(() => assert.deepEqual([...parts.alive].filter(isOfDaemon), [], 'nothing of a sandbox is left'));
  const forwarded: string[] = [];
  const held: Promise<void>[] = [];
  const ports: ShimOptions['ports'] = {
    hold: async () => await (held[0] ?? Promise.resolve()),
    forward({ id }) {
      forwarded.push(id);
      return Promise.resolve({ [Symbol.dispose]: () => undefined });
    },
  };
  const begin = async () => {
    await using starting = new AsyncDisposableStack();
    const shared = { directory: shimDirectory, clock: systemClock, log: silentLog };
    const keeper = starting.use(new Keeper({ ...shared, socketPath }));
    parts.openFifos = (fifos) => keeper.openFifos(fifos);
    const never = new AbortController().signal;
    const sandboxes = starting.use(await openSandboxes({ directory, parts, log: silentLog, limits }, never));
    starting.use(await serveShim({ ...shared, keeper, sandboxes, forgottenMs: 50, ports }));
    const daemon = starting.move();
    return { sandboxes, end: () => daemon.disposeAsync() };
  };
  let daemon = await begin();
  undo.defer(async () => {
    await Promise.all(daemon.sandboxes.list().map((sandbox) => sandbox.remove())); // pods outlive what runs them
    await daemon.end();
  });
  const client = undo.use(new TtrpcClient(socketPath));

  const told: string[] = [];
  const eventsSocket = join(directory, 'containerd.ttrpc');
  const events = handlersOf(Events, {
    forward({ envelope }) {
      const text = Buffer.from(envelope?.event?.value ?? []).toString('latin1');
      told.push(`${envelope?.topic} ${/(?:pod|box)-\d/.exec(text)?.[0]}`);
      assert.equal(envelope?.namespace, 'k8s.io');
      return Promise.resolve({});
    },
  });
  undo.use(await serveTtrpc(eventsSocket, new Map([[Events.typeName, events]]), silentLog));

  const created: ServedShim['created'] = async (id, spec = containerSpec, io = {}) => {
    await client.call(Task.method.create, { id, bundle: await bundle(id, spec), rootfs, ...io }, soon);
    const { params } = parts.guest.calls.findLast(({ method }) => method === 'createContainer') ?? {};
    return String(params?.['id']);
  };
  const bundle = (id: string, spec: object) => writeBundle(join(directory, 'state'), id, spec, eventsSocket);
  const handles = undo.use(new AsyncDisposableStack());
  const owned = undo.move();
  return {
    directory,
    parts,
    client,
    told,
    forwarded,
    held,
    bundle,
    end: () => daemon.end(),
    async next() {
      daemon = await begin();
    },
    async io(name) {
      const at = (stream: string) => join(directory, 'io', `${name}-${stream}`);
      const paths = { stdin: at('stdin'), stdout: at('stdout'), stderr: at('stderr') };
      await mkdir(join(directory, 'io'), { recursive: true });
      await run('mkfifo', Object.values(paths));
      const stdin = handles.use(await open(paths.stdin, constants.O_RDWR));
      // A reader that waits until it is asked: before the runtime has opened it, it would read the end.
      const output = new Socket({
        fd: openSync(paths.stdout, constants.O_RDONLY | constants.O_NONBLOCK),
        readable: true,
      });
      handles.defer(() => void output.destroy());
      return { paths, stdin, stdout: () => text(output) };
    },
    async pod(spec = podSpec) {
      await client.call(Task.method.create, { id: 'pod-1', bundle: await bundle('pod-1', spec) }, soon);
      await client.call(Task.method.start, { id: 'pod-1' }, soon);
    },
    created,
    async container(id, spec, io) {
      const guestId = await created(id, spec, io);
      await client.call(Task.method.start, { id }, soon);
      return guestId;
    },
    exit: (containerId, exitCode, oomKilled = false) =>
      parts.guest.tell({ kind: 'exited', containerId, exitCode, oomKilled, finishedAtMs: Date.now() }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
