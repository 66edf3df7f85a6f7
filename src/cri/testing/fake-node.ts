import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import type { FakeImages } from '#image/testing/fake-images.ts';
import { createFakeParts, type FakeParts } from '#sandbox/testing/fake-parts.ts';
import { defaultLimits } from '#sandbox/limits.ts';
import { openSandboxes } from '#sandbox/sandboxes.ts';
import type { DelegateSettings } from '../delegate/delegate.ts';
import { connectTestClient, type ClientOf, type StreamingClient } from './grpc-client.ts';
import {
  ImageService,
  type PodSandboxConfigSchema,
  type ContainerConfigSchema,
  RuntimeService,
} from '../schema/api_pb.ts';
import { serveCri } from '../serve-cri.ts';
import type { CriParts, NetworkReadiness } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';

/** A node with fake guests and images behind the real socket, as seen by a kubelet; for tests. */
export interface FakeNode extends AsyncDisposable {
  readonly directory: string;
  readonly socketPath: string;
  readonly parts: FakeParts;
  readonly images: FakeImages;
  /** Sets the readiness that the node's network reports. */
  setNetworkReadiness(readiness: NetworkReadiness): void;
  readonly runtime: ClientOf<typeof RuntimeService>;
  readonly imageService: ClientOf<typeof ImageService>;
  /** Sends raw bytes. */
  readonly raw: StreamingClient['raw'];
  /** Requested streams, newest last. */
  readonly streams: Parameters<CriParts['streaming']['execUrl' | 'attachUrl' | 'portForwardUrl']>[0][];
  /** Reports the end of a container's first process by the guest. */
  exit(containerId: string, exitCode: number): void;
  /** Ends the process behind the socket as SIGTERM does, calls `meanwhile`, and starts the next process. */
  restart(meanwhile: () => Promise<void>): Promise<void>;
  /** Makes a pod with a running container. */
  running(pod?: PodConfig, container?: ContainerConfig): Promise<{ podSandboxId: string; containerId: string }>;
}

type PodConfig = Answer<typeof PodSandboxConfigSchema>;
type ContainerConfig = Answer<typeof ContainerConfigSchema>;

export const podConfig = {
  metadata: { name: 'web', namespace: 'default', uid: 'u-1', attempt: 0 },
  labels: { app: 'web' },
  annotations: { why: 'a test' },
} satisfies PodConfig;

export const containerConfig = {
  metadata: { name: 'main', attempt: 0 },
  image: { image: 'busybox' },
  command: ['sh'],
  labels: { part: 'main' },
} satisfies ContainerConfig;

/** Resources that end with a process, or that are files in the directory, after another process has taken over. */
const ofProcess: ReadonlySet<string> = new Set(['scratch', 'image']);

export interface FakeNodeOptions {
  /** Images that are present from the start. */
  readonly pulled?: readonly string[];
  readonly delegate?: DelegateSettings;
}

export async function openFakeNode({ pulled = ['busybox'], delegate }: FakeNodeOptions = {}): Promise<FakeNode> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-cri-'));
  const parts = createFakeParts(directory, { cmd: ['run'], user: '1000:50' });
  const { images } = parts;
  for (const reference of pulled) await images.pull(reference, {}, new AbortController().signal);
  const limits = { ...defaultLimits, drainTimeoutMs: 200 };
  const streams: FakeNode['streams'][number][] = [];
  const urlOf = (request: FakeNode['streams'][number]) => `http://127.0.0.1/${streams.push(request)}`;
  const socketPath = join(directory, 'cri.sock');
  let network: NetworkReadiness = { isReady: true, name: 'fake' };
  const open = async () => {
    const sandboxes = await openSandboxes({ directory, parts, log: silentLog, limits }, new AbortController().signal);
    const server = await serveCri({
      socketPath,
      directory: join(directory, 'cri'),
      sandboxes,
      images,
      streaming: {
        execUrl: urlOf,
        attachUrl: urlOf,
        portForwardUrl: urlOf,
        relayedPortForwardUrl: (url) => `${url}?relayed`,
      },
      networkReadiness: () => Promise.resolve(network),
      clock: systemClock,
      log: silentLog,
      delegate,
      node: { version: '1.2.3', imagesDirectory: join(directory, 'images'), facts: { root: directory } },
    });
    const client = connectTestClient(socketPath);
    const raw: StreamingClient['raw'] = (path, bytes) => client.raw(path, bytes);
    const clients = { runtime: client.of(RuntimeService), imageService: client.of(ImageService), raw };
    const close = async () => {
      client[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
      await sandboxes[Symbol.asyncDispose]();
    };
    return { sandboxes, ...clients, close };
  };
  let now = await open();
  return {
    directory,
    socketPath,
    parts,
    images,
    setNetworkReadiness: (readiness) => void (network = readiness),
    get runtime() {
      return now.runtime;
    },
    get imageService() {
      return now.imageService;
    },
    get raw() {
      return now.raw;
    },
    async restart(meanwhile) {
      await now.close();
      await meanwhile();
      now = await open();
    },
    streams,
    exit: (containerId, exitCode) =>
      parts.guest.tell({ kind: 'exited', containerId, exitCode, oomKilled: false, finishedAtMs: Date.now() }),
    async running(pod = podConfig, container = containerConfig) {
      const { runtime } = now;
      const { podSandboxId } = await runtime.runPodSandbox({ config: pod });
      const { containerId } = await runtime.createContainer({ podSandboxId, config: container, sandboxConfig: pod });
      await runtime.startContainer({ containerId });
      return { podSandboxId, containerId };
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(now.sandboxes.list().map((sandbox) => sandbox.remove())); // they outlive their process otherwise
      await now.close();
      assert.deepEqual(
        [...parts.alive].filter((name) => !ofProcess.has(name)),
        [],
        'nothing of a sandbox is left',
      );
      await rm(directory, { recursive: true });
    },
  };
}
