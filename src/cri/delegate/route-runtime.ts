import { toBinary } from '@bufbuild/protobuf';
import { kindOf, PodvmError } from '#base/errors.ts';
import type { Answer, EncodedAnswer, Verbs } from '../rpc/service.ts';
import { type ContainerEventResponseSchema, RuntimeService } from '../schema/api_pb.ts';
import { chooseRuntime, type Runtime } from './choose-runtime.ts';
import type { Method } from '../rpc/cri-client.ts';
import type { Delegate } from './delegate.ts';
import type { DelegateParts } from './delegate-parts.ts';
import { routeLists } from './route-lists.ts';
import { eventsOf, mergeStreams } from './merge-events.ts';
import { mergeStatus } from './merge-status.ts';

type OwnVerbs = Verbs<typeof RuntimeService>;
type RoutedVerbs = Verbs<typeof RuntimeService, EncodedAnswer>;

type ContainerEvent = Answer<typeof ContainerEventResponseSchema>;

const { method } = RuntimeService;

/**
 * Puts the delegate beside our verbs, so that a client sees one runtime: a call that names a pod or a container goes to
 * the runtime that has it, and answers about all of them are merged.
 */
export function routeRuntime(own: OwnVerbs, parts: DelegateParts): RoutedVerbs {
  const { delegate, images, owners, streaming } = parts;
  const { ofPod, ofContainer, routed } = routesOf(parts);
  return {
    ...routeLists(own, parts),
    version: own.version,
    status: async (request, signal, bytes) =>
      await mergeStatus(await own.status(request, signal, bytes), delegate, request.verbose, signal),
    updateRuntimeConfig: async (request, signal, bytes) => {
      await own.updateRuntimeConfig(request, signal, bytes);
      return await delegate.forward(method.updateRuntimeConfig, bytes, signal);
    },
    runtimeConfig: runtimeConfigOf(delegate),
    runPodSandbox: routed(method.runPodSandbox, own.runPodSandbox, async ({ config, runtimeHandler }) =>
      chooseRuntime(config, runtimeHandler, delegate.settings.namespaces),
    ),
    stopPodSandbox: ofPod(method.stopPodSandbox, own.stopPodSandbox),
    removePodSandbox: ofPod(method.removePodSandbox, own.removePodSandbox),
    podSandboxStatus: ofPod(method.podSandboxStatus, own.podSandboxStatus),
    updatePodSandboxResources: ofPod(method.updatePodSandboxResources, own.updatePodSandboxResources),
    portForward: async (request, signal, bytes) => {
      if ((await owners.ofPod(request.podSandboxId, signal)) === 'podvm')
        return await own.portForward(request, signal, bytes);
      const { url } = await delegate.ask(method.portForward, request, signal);
      return { url: streaming.relayedPortForwardUrl(url) };
    },
    podSandboxStats: ofPod(method.podSandboxStats, own.podSandboxStats),
    createContainer: async (request, signal, bytes) => {
      const owner = await owners.ofPod(request.podSandboxId, signal);
      const isChanged = request.config !== undefined && (await images.bringTo(owner, request.config, signal));
      if (owner === 'podvm') return await own.createContainer(request, signal, bytes).catch(nameDelegate);
      const sent = isChanged ? toBinary(method.createContainer.input, request) : bytes;
      return await delegate.forward(method.createContainer, sent, signal);
    },
    startContainer: ofContainer(method.startContainer, own.startContainer),
    stopContainer: ofContainer(method.stopContainer, own.stopContainer),
    removeContainer: ofContainer(method.removeContainer, own.removeContainer),
    containerStatus: ofContainer(method.containerStatus, own.containerStatus),
    updateContainerResources: ofContainer(method.updateContainerResources, own.updateContainerResources),
    reopenContainerLog: ofContainer(method.reopenContainerLog, own.reopenContainerLog),
    execSync: ofContainer(method.execSync, own.execSync),
    exec: ofContainer(method.exec, own.exec),
    attach: ofContainer(method.attach, own.attach),
    containerStats: ofContainer(method.containerStats, own.containerStats),
    async *getContainerEvents(request, signal) {
      const ending = new AbortController(); // also when ours have ended
      const end = () => ending.abort(signal.reason);
      signal.addEventListener('abort', end, { once: true });
      try {
        yield* mergeStreams<ContainerEvent>([
          own.getContainerEvents(request, signal),
          eventsOf(delegate, ending.signal),
        ]);
      } finally {
        signal.removeEventListener('abort', end);
        end();
      }
    },
    checkpointContainer: ofContainer(method.checkpointContainer, own.checkpointContainer),
    checkpointPod: ofPod(method.checkpointPod, own.checkpointPod),
    restorePod: routed(method.restorePod, own.restorePod, async ({ config, runtimeHandler }) =>
      chooseRuntime(config, runtimeHandler, delegate.settings.namespaces),
    ),
  };
}

/**
 * Adds to the fix of an error that the delegate can run the pod: podvm learns of mounts and devices only when the pod
 * is a machine already.
 */
function nameDelegate(error: unknown): never {
  if (!(error instanceof PodvmError) || error.kind !== 'unsupported') throw error;
  const fix = 'Or run the pod by a RuntimeClass with a handler of the delegate, in a namespace of delegateNamespaces.';
  throw new PodvmError(error.kind, error.message, { cause: error.cause, fix: `${error.fix ?? ''} ${fix}`.trim() });
}

type Verb<Request, Result> = (request: Request, signal: AbortSignal, bytes: Buffer) => Promise<Result>;

/** Makes verbs that go to the runtime that `choose` names. */
function routesOf({ delegate, owners }: DelegateParts) {
  const routed =
    <Request, Result>(
      of: Method,
      own: Verb<Request, Result>,
      choose: (request: Request, signal: AbortSignal) => Promise<Runtime>,
    ): Verb<Request, Result | EncodedAnswer> =>
    async (request, signal, bytes) =>
      (await choose(request, signal)) === 'podvm'
        ? await own(request, signal, bytes)
        : await delegate.forward(of, bytes, signal);
  return {
    routed,
    ofPod: <Request extends { readonly podSandboxId: string }, Result>(of: Method, own: Verb<Request, Result>) =>
      routed(of, own, ({ podSandboxId }, signal) => owners.ofPod(podSandboxId, signal)),
    ofContainer: <Request extends { readonly containerId: string }, Result>(of: Method, own: Verb<Request, Result>) =>
      routed(of, own, ({ containerId }, signal) => owners.ofContainer(containerId, signal)),
  };
}

/**
 * Returns the delegate's answer, since the kubelet names cgroups for its driver, and podvm understands the names of
 * both. While the delegate is away, its last answer applies. Errors: `unsupported` from an older runtime: the kubelet
 * then uses its own configuration.
 */
function runtimeConfigOf(delegate: Delegate): RoutedVerbs['runtimeConfig'] {
  let last: EncodedAnswer | undefined;
  return async (_request, signal, bytes) => {
    try {
      last = await delegate.forward(method.runtimeConfig, bytes, signal);
    } catch (error) {
      if (last === undefined || kindOf(error) !== 'unavailable') throw error;
    }
    return last;
  };
}
