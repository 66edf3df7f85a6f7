import { create } from '@bufbuild/protobuf';
import { inParts } from '../in-parts.ts';
import type { Verbs } from '../rpc/service.ts';
import {
  ListMetricDescriptorsRequestSchema,
  type ListContainerStatsRequest,
  type ListPodSandboxStatsRequest,
  RuntimeService,
} from '../schema/api_pb.ts';
import type { DelegateParts } from './delegate-parts.ts';
import { mergeDescriptors, withOwnLabels } from './merge-metrics.ts';

type OwnVerbs = Verbs<typeof RuntimeService>;
type Lists = Pick<
  OwnVerbs,
  | 'listPodSandbox'
  | 'streamPodSandboxes'
  | 'listContainers'
  | 'streamContainers'
  | 'listContainerStats'
  | 'streamContainerStats'
  | 'listPodSandboxStats'
  | 'streamPodSandboxStats'
  | 'listMetricDescriptors'
  | 'listPodSandboxMetrics'
  | 'streamPodSandboxMetrics'
>;

const { method } = RuntimeService;

/**
 * Lists of both runtimes, ours first. Streamed lists end with the delegate's, which is requested as one message,
 * because not every runtime streams. Statistics of a delegate that is away are left out.
 */
export function routeLists(own: OwnVerbs, parts: DelegateParts): Lists {
  const { lists } = parts;
  const { containerStats, podStats, podMetrics, descriptors } = measuresOf(own, parts);
  return {
    listPodSandbox: async (request, signal, bytes) => {
      const { items = [] } = await own.listPodSandbox(request, signal, bytes);
      return { items: [...items, ...(await lists.pods(request.filter, signal))] };
    },
    async *streamPodSandboxes(request, signal) {
      yield* own.streamPodSandboxes(request, signal);
      for (const podSandboxes of inParts(await lists.pods(request.filter, signal))) yield { podSandboxes };
    },
    listContainers: async (request, signal, bytes) => {
      const { containers = [] } = await own.listContainers(request, signal, bytes);
      return { containers: [...containers, ...(await lists.containers(request.filter, signal))] };
    },
    async *streamContainers(request, signal) {
      yield* own.streamContainers(request, signal);
      for (const containers of inParts(await lists.containers(request.filter, signal))) yield { containers };
    },
    listContainerStats: async (request, signal, bytes) => {
      const { stats = [] } = await own.listContainerStats(request, signal, bytes);
      return { stats: [...stats, ...(await containerStats(request, signal))] };
    },
    async *streamContainerStats(request, signal) {
      yield* own.streamContainerStats(request, signal);
      for (const stats of inParts(await containerStats(request, signal))) yield { containerStats: stats };
    },
    listPodSandboxStats: async (request, signal, bytes) => {
      const { stats = [] } = await own.listPodSandboxStats(request, signal, bytes);
      return { stats: [...stats, ...(await podStats(request, signal))] };
    },
    async *streamPodSandboxStats(request, signal) {
      yield* own.streamPodSandboxStats(request, signal);
      for (const stats of inParts(await podStats(request, signal))) yield { podSandboxStats: stats };
    },
    listMetricDescriptors: async (_request, signal) => ({ descriptors: (await descriptors(signal)).merged }),
    listPodSandboxMetrics: async (request, signal, bytes) => {
      const answer = await own.listPodSandboxMetrics(request, signal, bytes);
      return { podMetrics: [...(answer.podMetrics ?? []), ...(await podMetrics(signal))] };
    },
    async *streamPodSandboxMetrics(request, signal) {
      yield* own.streamPodSandboxMetrics(request, signal);
      for (const metrics of inParts(await podMetrics(signal))) yield { podSandboxMetrics: metrics };
    },
  };
}

interface Named {
  readonly id: string;
  readonly podSandboxId?: string;
}

/** The delegate's measurements: none while it is away. */
function measuresOf(own: OwnVerbs, { delegate, owners }: DelegateParts) {
  /** Whether a filter is for a pod or container of ours alone. */
  const isOurs = async (filter: Named | undefined, of: 'ofPod' | 'ofContainer', signal: AbortSignal) => {
    const { id = '', podSandboxId = '' } = filter ?? {};
    if (id !== '') return (await owners[of](id, signal)) === 'podvm';
    return podSandboxId !== '' && (await owners.ofPod(podSandboxId, signal)) === 'podvm';
  };
  const descriptors = async (signal: AbortSignal) => {
    const ours = (await own.listMetricDescriptors(create(ListMetricDescriptorsRequestSchema), signal, none))
      .descriptors;
    const theirs = (await delegate.askPart(method.listMetricDescriptors, {}, signal))?.descriptors ?? [];
    return { ours: ours ?? [], theirs, merged: mergeDescriptors(ours ?? [], theirs) };
  };
  return {
    descriptors,
    containerStats: async ({ filter }: ContainerStatsRequest, signal: AbortSignal) => {
      if (await isOurs(filter, 'ofContainer', signal)) return [];
      const request = filter === undefined ? {} : { filter };
      return (await delegate.askPart(method.listContainerStats, request, signal))?.stats ?? [];
    },
    podStats: async ({ filter }: PodStatsRequest, signal: AbortSignal) => {
      if (await isOurs(filter, 'ofPod', signal)) return [];
      const request = filter === undefined ? {} : { filter };
      return (await delegate.askPart(method.listPodSandboxStats, request, signal))?.stats ?? [];
    },
    podMetrics: async (signal: AbortSignal) => {
      const found = await delegate.askPart(method.listPodSandboxMetrics, {}, signal);
      if (found === undefined || found.podMetrics.length === 0) return [];
      const { ours, theirs } = await descriptors(signal);
      return withOwnLabels(found.podMetrics, ours, theirs);
    },
  };
}

type ContainerStatsRequest = Pick<ListContainerStatsRequest, 'filter'>;
type PodStatsRequest = Pick<ListPodSandboxStatsRequest, 'filter'>;

const none = Buffer.alloc(0);
