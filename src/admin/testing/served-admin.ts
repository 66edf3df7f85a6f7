import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import * as v from 'valibot';
import { WebSocket } from 'ws';
import { errorBodySchema } from '#api/pods.ts';
import { PodvmError } from '#base/errors.ts';
import type { Served as ServedServices, ServedService } from '#base/served-services.ts';
import { silentLog } from '#host/log/log.ts';
import { CountedImages } from '#image/image-counts.ts';
import type { ImageStore } from '#image/images.ts';
import { createFakeClock, type FakeClock } from '#pod/testing/fake-clock.ts';
import { createFakeSandboxes, type FakeSandboxes, type FakeSettings } from '#pod/testing/fake-sandbox.ts';
import { createPodTable } from '#pod/pod-table.ts';
import { NamedVolumes } from '#storage/named-volumes.ts';
import { EndedPods } from '../record/ended-pods.ts';
import { type PodKeeping } from '../pods/node-pods.ts';
import { type AdminParts, type AdminServer, serveAdmin } from '../server.ts';

export const yaml = `
apiVersion: v1
kind: Pod
metadata: { name: web }
spec: { restartPolicy: Never, containers: [{ name: main, image: i }] }
`;

/** A Job of two pods. `more`: fields of its container. */
export const jobText = (more = '') => `
apiVersion: batch/v1
kind: Job
metadata: { name: pi }
spec:
  backoffLimit: 0
  completions: 2
  template: { spec: { restartPolicy: Never, containers: [{ name: main, image: i ${more} }] } }
`;

const noImage = async () => {
  throw new PodvmError('notFound', 'Cannot find the image');
};
const noImages: ImageStore = {
  counts: new CountedImages(),
  pull: noImage,
  load: noImage,
  buildBase: noImage,
  hold: noImage,
  tag: noImage,
  untag: noImage,
  check: noImage,
  remove: noImage,
  list: () => [],
  get: () => undefined,
};

const limits = { pods: 10, bytes: 10_000_000 };

const onThisBoot = { bootId: 'boot', startsAfterBoot: false };

interface OpenOptions {
  readonly mayDetach?: boolean;
  readonly keeping?: PodKeeping;
  /** An ended process whose machines and records this one finds. */
  readonly before?: { readonly sandboxes: FakeSandboxes; readonly clock: FakeClock; readonly kept: string };
}

/** Keeps what pods would reach by the names of Services. */
class FakeServiceNetwork {
  names: readonly { readonly name: string; readonly address: string }[] | undefined;
  services: readonly ServedService[] = [];

  async serve({ names, services }: ServedServices): Promise<string> {
    this.names = names;
    this.services = services;
    return '10.196.0.10';
  }

  async stop(): Promise<void> {
    this.names = undefined;
  }
}

/** Serves a socket with fake sandboxes. */
export async function openAdmin(
  settings: FakeSettings = {},
  { mayDetach = true, keeping = onThisBoot, before }: OpenOptions = {},
): Promise<Served> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-admin-'));
  const kept = before?.kept ?? (await mkdtemp(join(tmpdir(), 'podvm-kept-')));
  const socketPath = join(directory, 'podvm.sock');
  const clock = before?.clock ?? createFakeClock();
  const whyNotReady: string[] = [];
  const volumes = new NamedVolumes(join(kept, 'volumes'));
  const services = new FakeServiceNetwork();
  const parts = {
    sandboxes: before?.sandboxes ?? createFakeSandboxes(clock, settings),
    images: noImages,
    log: silentLog,
    clock,
    monitoring: {
      metrics: { write: async (format: string) => `of ${format}\n` },
      versions: async () => ({ podvm: '1.2.3' }),
      whyNotReady: async () => [...whyNotReady],
    },
    diskUsage: async () => ({
      root: '/state',
      totalBytes: 5,
      uses: [{ kind: 'images' as const, bytes: 5, isOld: false }],
    }),
    recentLog: () => 'a line\n',
    pods: createPodTable(),
    ended: await EndedPods.open({ directory: join(kept, 'ended'), limits, log: silentLog }),
    volumes,
    services: { path: join(kept, 'services.json'), network: services },
    cronJobsPath: join(kept, 'cron-jobs.json'),
    jobsDirectory: join(kept, 'jobs'),
    ...(mayDetach ? { keeping } : {}),
    node: { nodeName: 'node', volumePath: (namespace: string, name: string) => volumes.pathOf(namespace, name) },
  };
  const server = await serveAdmin(socketPath, parts);
  const call = async (method: string, path: string, body?: string) => {
    const outgoing = request({ socketPath, method, path, agent: false });
    outgoing.on('error', () => {}); // the answer may arrive before the body is sent
    outgoing.end(body);
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    return { status: response.statusCode ?? 0, body: await text(response) };
  };
  const talk = (path: string) => {
    const socket = new WebSocket(`ws+unix://${socketPath}:${path}`);
    socket.on('error', () => {});
    return socket;
  };
  const end = async () => {
    await server[Symbol.asyncDispose]();
    assert.deepEqual(await readdir(directory), [], 'the socket is removed');
    await rm(directory, { recursive: true });
  };
  return {
    directory,
    /** Directory of the records of its pods. */
    kept: join(kept, 'ended'),
    /** Ends this process, calls `meanwhile`, and starts the next process on the same machines and records. */
    async next(options: OpenOptions = {}, meanwhile: () => void | Promise<void> = () => {}): Promise<Served> {
      await end();
      await meanwhile();
      return await openAdmin(settings, { ...options, before: { sandboxes: parts.sandboxes, clock, kept } });
    },
    socketPath,
    server,
    parts,
    services,
    whyNotReady,
    call,
    talk,
    async [Symbol.asyncDispose]() {
      await end();
      await rm(kept, { recursive: true });
    },
  };
}
export interface Served extends AsyncDisposable {
  readonly directory: string;
  readonly kept: string;
  readonly next: (options?: OpenOptions, meanwhile?: () => void | Promise<void>) => Promise<Served>;
  readonly socketPath: string;
  readonly server: AdminServer;
  readonly parts: AdminParts & { readonly sandboxes: FakeSandboxes; readonly clock: FakeClock };
  readonly services: FakeServiceNetwork;
  readonly whyNotReady: string[];
  readonly call: (method: string, path: string, body?: string) => Promise<{ status: number; body: string }>;
  readonly talk: (path: string) => WebSocket;
}

export async function refusalOf(served: Served, method: string, path: string, body?: string) {
  const answer = await served.call(method, path, body);
  const { kind, message, fix } = v.parse(errorBodySchema, JSON.parse(answer.body));
  return { status: answer.status, kind, message, fix };
}

/** Yields the events of a `run`. */
export async function* eventsOf(socket: WebSocket): AsyncGenerator<Record<string, unknown>> {
  for await (const [data, isBinary] of on(socket))
    if (!isBinary) yield JSON.parse(String(data)) as Record<string, unknown>;
}

export async function* on(socket: WebSocket): AsyncGenerator<[unknown, boolean]> {
  const queue: [unknown, boolean][] = [];
  let wake = Promise.withResolvers<void>();
  socket.on('message', (data, isBinary) => {
    queue.push([data, isBinary]);
    wake.resolve();
  });
  socket.on('close', () => wake.resolve());
  while (socket.readyState !== socket.CLOSED || queue.length > 0) {
    const next = queue.shift();
    if (next !== undefined) yield next;
    else {
      await wake.promise;
      wake = Promise.withResolvers();
    }
  }
}

/** Sends a file to one of the sessions that take files. */
export async function sendFile(
  served: Served,
  verb: 'apply' | 'delete' | 'diff' | 'run',
  file: string,
  network: 'cni' | 'none' = 'none',
): Promise<WebSocket> {
  const socket = served.talk(`/v1/${verb}`);
  await once(socket, 'open');
  socket.send(JSON.stringify({ files: [{ name: 'f', text: file }], network }));
  return socket;
}

/** The same to the session's end. `objects`: what became of each, e.g. `Pod default/web created`. */
export async function talk(...args: Parameters<typeof sendFile>) {
  const events = await Array.fromAsync(eventsOf(await sendFile(...args)));
  const objects = events
    .filter(({ event }) => event === 'object')
    .map(({ object, change }) => [object, change].join(' '));
  return { events, objects, last: events.at(-1) };
}

export async function run(served: Served, options: object = {}): Promise<WebSocket> {
  const socket = served.talk('/v1/run');
  await once(socket, 'open');
  socket.send(JSON.stringify({ files: [{ name: 'web.yaml', text: yaml }], network: 'none', ...options }));
  for await (const event of eventsOf(socket)) if ((event['detail'] as { reason?: string })?.reason === 'Started') break;
  return socket;
}
