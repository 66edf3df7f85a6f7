import { randomBytes } from 'node:crypto';
import { create, toBinary } from '@bufbuild/protobuf';
import { PodvmError } from '#base/errors.ts';
import { silentLog } from '#host/log/log.ts';
import { serveGrpc } from '../rpc/serve-grpc.ts';
import { addService, type Answer, EncodedAnswer, type Verbs } from '../rpc/service.ts';
import {
  type ContainerEventResponseSchema,
  type ContainerSchema,
  ContainerState,
  type ImageSchema,
  ImageService,
  type PodSandboxSchema,
  PodSandboxState,
  PodSandboxStatusResponseSchema,
  RuntimeService,
} from '../schema/api_pb.ts';

type Init<T> = { -readonly [K in keyof T]: T[K] };

/** Another runtime behind a real socket, with the calls that tests need. Its pods and images outlive its process. */
export interface FakeDelegate extends AsyncDisposable {
  readonly socketPath: string;
  readonly pods: Map<string, Answer<typeof PodSandboxSchema>>;
  readonly containers: Map<string, Answer<typeof ContainerSchema>>;
  readonly images: Map<string, Answer<typeof ImageSchema>>;
  /** Calls that arrived, newest last, as `Verb` or `Verb subject`. */
  readonly calls: string[];
  /** Verbs that never answer. */
  readonly hanging: Set<string>;
  /** Verbs that fail. */
  readonly failing: Map<string, PodvmError>;
  /** Reports an event to its listeners. */
  tell(event: Answer<typeof ContainerEventResponseSchema>): void;
  /** Number of listeners to its events. */
  readonly listeners: number;
  stop(): Promise<void>;
  start(): Promise<void>;
}

/** A field that the schema of podvm does not have: number 1000, with the value 1. */
const unknownField = Buffer.from([0xc0, 0x3e, 0x01]);

/** Appends the unknown field to a message. */
export const withUnknown = (bytes: Uint8Array): Buffer => Buffer.concat([bytes, unknownField]);

export const hasUnknown = (bytes: Uint8Array): boolean => Buffer.from(bytes).includes(unknownField);

export async function serveFakeDelegate(socketPath: string): Promise<FakeDelegate> {
  const listeners = new Set<(event: Answer<typeof ContainerEventResponseSchema>) => void>();
  const fake: Init<Omit<FakeDelegate, 'listeners'>> & { listeners: number } = {
    socketPath,
    pods: new Map(),
    containers: new Map(),
    images: new Map(),
    calls: [],
    hanging: new Set(),
    failing: new Map(),
    tell: (event) => {
      for (const listener of listeners) listener(event);
    },
    get listeners() {
      return listeners.size;
    },
    async stop() {
      await server?.[Symbol.asyncDispose]();
      server = undefined;
    },
    async start() {
      server = await serveGrpc(socketPath, (to) => {
        addService(to, RuntimeService, watched(runtimeVerbs(fake, listeners), fake), silentLog);
        addService(to, ImageService, watched(imageVerbs(fake), fake), silentLog);
      });
    },
    [Symbol.asyncDispose]: () => fake.stop(),
  };
  let server: AsyncDisposable | undefined;
  await fake.start();
  return fake;
}

/** Lets tests have any verb hang or fail, and counts the calls. */
function watched<T extends object>(
  verbs: T,
  { calls, hanging, failing }: Pick<FakeDelegate, 'calls' | 'hanging' | 'failing'>,
): T {
  const entries = Object.entries(verbs).map(([name, verb]) => {
    const act = verb as (request: object, signal: AbortSignal, bytes: Buffer) => unknown; // SAFE: as in Verbs
    return [
      name,
      (request: object, signal: AbortSignal, bytes: Buffer) => {
        calls.push(name);
        if (hanging.has(name))
          return new Promise<never>((_resolve, reject) =>
            signal.addEventListener('abort', () => reject(new Error('cancelled')), { once: true }),
          );
        const error = failing.get(name);
        return error === undefined ? act(request, signal, bytes) : Promise.reject(error);
      },
    ];
  });
  return Object.fromEntries(entries) as T; // SAFE: the same names
}

const unsupported = async (): Promise<never> => {
  throw new PodvmError('unsupported', 'not in this runtime');
};

async function* noStream(): AsyncGenerator<never> {
  yield* [];
  await unsupported();
}

function found<T>(all: ReadonlyMap<string, T>, id: string): T {
  const one = all.get(id);
  if (one === undefined) throw new PodvmError('notFound', `fake: no ${id}`);
  return one;
}

function runtimeVerbs(
  { pods, containers }: Pick<FakeDelegate, 'pods' | 'containers'>,
  listeners: Set<(event: Answer<typeof ContainerEventResponseSchema>) => void>,
): Verbs<typeof RuntimeService, EncodedAnswer> {
  const containerOf = (id: string) => found(containers, id);
  const nothing = async () => ({});
  const become = (id: string, state: ContainerState) => containers.set(id, { ...containerOf(id), state });
  const containersOf = (podSandboxId: string) =>
    [...containers].filter(([, container]) => container.podSandboxId === podSandboxId).map(([id]) => id);
  return {
    version: async () => ({ version: '0.1.0', runtimeName: 'fake', runtimeVersion: '9', runtimeApiVersion: 'v1' }),
    status: async ({ verbose }) => ({
      status: {
        conditions: [
          { type: 'RuntimeReady', status: true },
          { type: 'NetworkReady', status: false, message: 'no CNI' },
        ],
      },
      runtimeHandlers: [{ name: '' }, { name: 'runc' }, { name: 'podvm' }],
      features: { supplementalGroupsPolicy: false },
      info: verbose ? { config: '{}' } : {},
    }),
    updateRuntimeConfig: nothing,
    runtimeConfig: async () => ({ linux: { cgroupDriver: 0 } }),
    runPodSandbox: async ({ config, runtimeHandler }, _signal, bytes) => {
      if (config === undefined) throw new PodvmError('invalid', 'fake: no config');
      const id = randomBytes(32).toString('hex');
      const labels = { ...config.labels, ...(hasUnknown(bytes) ? { sawUnknown: 'yes' } : {}) };
      pods.set(id, {
        id,
        labels,
        runtimeHandler,
        state: PodSandboxState.SANDBOX_READY,
        ...(config.metadata === undefined ? {} : { metadata: config.metadata }),
      });
      return { podSandboxId: id };
    },
    stopPodSandbox: async ({ podSandboxId }) => {
      const pod = pods.get(podSandboxId);
      if (pod !== undefined) pods.set(podSandboxId, { ...pod, state: PodSandboxState.SANDBOX_NOTREADY });
      for (const id of containersOf(podSandboxId)) become(id, ContainerState.CONTAINER_EXITED);
      return {};
    },
    removePodSandbox: async ({ podSandboxId }) => {
      for (const id of containersOf(podSandboxId)) containers.delete(id);
      pods.delete(podSandboxId);
      return {};
    },
    podSandboxStatus: async ({ podSandboxId }) => {
      const { id = '', state = 0 } = found(pods, podSandboxId);
      const answer = create(PodSandboxStatusResponseSchema, { status: { id, state } });
      return new EncodedAnswer(withUnknown(toBinary(PodSandboxStatusResponseSchema, answer)));
    },
    listPodSandbox: async () => ({ items: [...pods.values()] }),
    streamPodSandboxes: noStream,
    updatePodSandboxResources: nothing,
    createContainer: async ({ podSandboxId, config }) => {
      found(pods, podSandboxId);
      const id = randomBytes(32).toString('hex');
      const image = config?.image?.image ?? '';
      containers.set(id, {
        id,
        podSandboxId,
        imageRef: image,
        labels: config?.labels ?? {},
        state: ContainerState.CONTAINER_CREATED,
      });
      return { containerId: id };
    },
    startContainer: async ({ containerId }) => {
      become(containerId, ContainerState.CONTAINER_RUNNING);
      return {};
    },
    stopContainer: async ({ containerId }) => {
      become(containerId, ContainerState.CONTAINER_EXITED);
      return {};
    },
    removeContainer: async ({ containerId }) => {
      containers.delete(containerId);
      return {};
    },
    containerStatus: async ({ containerId }) => {
      const { id = '', state = 0 } = containerOf(containerId);
      return { status: { id, state } };
    },
    listContainers: async () => ({ containers: [...containers.values()] }),
    streamContainers: noStream,
    updateContainerResources: nothing,
    reopenContainerLog: nothing,
    execSync: async ({ containerId }) => ({ stdout: Buffer.from(`in ${containerOf(containerId).id}`) }),
    exec: async () => ({ url: 'http://127.0.0.1:1/exec/fake' }),
    attach: async () => ({ url: 'http://127.0.0.1:1/attach/fake' }),
    portForward: async () => ({ url: 'http://127.0.0.1:1/portforward/fake' }),
    containerStats: async ({ containerId }) => ({ stats: { attributes: { id: containerId } } }),
    listContainerStats: async () => ({ stats: [...containers.keys()].map((id) => ({ attributes: { id } })) }),
    streamContainerStats: noStream,
    podSandboxStats: async ({ podSandboxId }) => ({ stats: { attributes: { id: podSandboxId } } }),
    listPodSandboxStats: async () => ({ stats: [...pods.keys()].map((id) => ({ attributes: { id } })) }),
    streamPodSandboxStats: noStream,
    async *getContainerEvents(_request, signal) {
      const unread: Answer<typeof ContainerEventResponseSchema>[] = [];
      let wake = () => {};
      const listener = (event: (typeof unread)[number]) => {
        unread.push(event);
        wake();
      };
      listeners.add(listener);
      signal.addEventListener('abort', () => wake(), { once: true });
      while (!signal.aborted) {
        for (let next = unread.shift(); next !== undefined; next = unread.shift()) yield next;
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (signal.aborted) resolve();
        });
      }
      listeners.delete(listener);
    },
    checkpointContainer: unsupported,
    checkpointPod: unsupported,
    restorePod: unsupported,
    listMetricDescriptors: async () => ({
      descriptors: [
        { name: 'container_cpu_usage_seconds_total', labelKeys: ['pod', 'id', 'extra'] },
        { name: 'fake_only', labelKeys: ['id'] },
      ],
    }),
    listPodSandboxMetrics: async () => ({
      podMetrics: [...pods.keys()].map((id) => ({
        podSandboxId: id,
        metrics: [
          { name: 'container_cpu_usage_seconds_total', labelValues: ['a-pod', id, 'x'] },
          { name: 'fake_only', labelValues: [id] },
        ],
      })),
    }),
    streamPodSandboxMetrics: noStream,
  };
}

function imageVerbs({ images }: Pick<FakeDelegate, 'images'>): Verbs<typeof ImageService, EncodedAnswer> {
  const find = (name: string) =>
    [...images.values()].find(
      ({ id, repoTags = [], repoDigests = [] }) => id === name || [...repoTags, ...repoDigests].includes(name),
    );
  return {
    listImages: async () => ({ images: [...images.values()] }),
    streamImages: noStream,
    imageStatus: async ({ image }) => {
      const one = find(image?.image ?? '');
      return one === undefined ? {} : { image: one };
    },
    pullImage: async ({ image }) => {
      const name = image?.image ?? '';
      const id = find(name)?.id ?? `sha256:${Buffer.from(name).toString('hex').padEnd(64, '0').slice(0, 64)}`;
      images.set(id, { id, size: 7n, ...(name.includes('@') ? { repoDigests: [name] } : { repoTags: [name] }) });
      return { imageRef: id };
    },
    removeImage: async ({ image }) => {
      const one = find(image?.image ?? '');
      if (one?.id !== undefined) images.delete(one.id);
      return {};
    },
    imageFsInfo: async () => ({
      imageFilesystems: [{ fsId: { mountpoint: '/' }, usedBytes: { value: 1000n }, inodesUsed: { value: 10n } }],
      containerFilesystems: [{ fsId: { mountpoint: '/' }, usedBytes: { value: 1000n }, inodesUsed: { value: 10n } }],
    }),
  };
}
