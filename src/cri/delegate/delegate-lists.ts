import {
  type Container,
  type ContainerFilter,
  type PodSandbox,
  type PodSandboxFilter,
  type PodSandboxMetadata,
  RuntimeService,
} from '../schema/api_pb.ts';
import { hasLabels } from '../translate/labels.ts';
import type { Delegate } from './delegate.ts';

const { listPodSandbox, listContainers } = RuntimeService.method;

/**
 * Pods and containers of the delegate. Lists are always asked for whole, so that the last ones can take the place of those
 * of a delegate that is away: a kubelet would take pods that are missing from a list for lost, and start others.
 */
export class DelegateLists {
  readonly #delegate: Delegate;
  #pods: readonly PodSandbox[] = [];
  #containers: readonly Container[] = [];

  constructor(delegate: Delegate) {
    this.#delegate = delegate;
  }

  async pods(filter: PodSandboxFilter | undefined, signal: AbortSignal): Promise<PodSandbox[]> {
    const { items } = (await this.#delegate.askPart(listPodSandbox, {}, signal)) ?? { items: this.#pods };
    this.#pods = items;
    const { id = '', state, labelSelector = {} } = filter ?? {};
    return items.filter(
      (pod) =>
        pod.id.startsWith(id) &&
        (state === undefined || pod.state === state.state) &&
        hasLabels(pod.labels, labelSelector),
    );
  }

  async containers(filter: ContainerFilter | undefined, signal: AbortSignal): Promise<Container[]> {
    const { containers } = (await this.#delegate.askPart(listContainers, {}, signal)) ?? {
      containers: this.#containers,
    };
    this.#containers = containers;
    const { id = '', podSandboxId = '', state, labelSelector = {} } = filter ?? {};
    return containers.filter(
      (container) =>
        container.id.startsWith(id) &&
        container.podSandboxId.startsWith(podSandboxId) &&
        (state === undefined || container.state === state.state) &&
        hasLabels(container.labels, labelSelector),
    );
  }

  /** Returns whether it has a sandbox of the pod, of any attempt. */
  async hasPod(of: PodSandboxMetadata, signal: AbortSignal): Promise<boolean> {
    return (await this.pods(undefined, signal)).some(({ metadata }) => isSamePod(metadata, of));
  }
}

export const isSamePod = (one: PodSandboxMetadata | undefined, other: PodSandboxMetadata): boolean =>
  one?.uid === other.uid && one.name === other.name && one.namespace === other.namespace;
