import { join } from 'node:path';
import type { DescMessage } from '@bufbuild/protobuf';
import type { Log } from '#host/log/log.ts';
import {
  type Container,
  type ContainerFilter,
  type ListContainersResponseSchema,
  type ListPodSandboxResponseSchema,
  type PodSandbox,
  type PodSandboxFilter,
  type PodSandboxMetadata,
  RuntimeService,
} from '../schema/api_pb.ts';
import { hasLabels } from '../translate/labels.ts';
import type { Method } from '../rpc/cri-client.ts';
import type { Delegate } from './delegate.ts';
import { LastAnswer } from './last-answer.ts';

const { listPodSandbox, listContainers } = RuntimeService.method;

/**
 * Pods and containers of the delegate. Lists are always requested whole, so that the last ones can replace those of a
 * delegate that is away: a kubelet would regard pods that are missing from a list as lost, and start others. Files keep
 * the lists for the next process.
 */
export class DelegateLists {
  readonly #pods: LastAnswer<typeof ListPodSandboxResponseSchema>;
  readonly #containers: LastAnswer<typeof ListContainersResponseSchema>;

  private constructor(
    pods: LastAnswer<typeof ListPodSandboxResponseSchema>,
    containers: LastAnswer<typeof ListContainersResponseSchema>,
  ) {
    this.#pods = pods;
    this.#containers = containers;
  }

  /** `directory`: directory of the files; created when the first is written. */
  static async open(delegate: Delegate, directory: string, log: Log): Promise<DelegateLists> {
    const ask = <Output extends DescMessage>(method: Method<DescMessage, Output>, name: string) =>
      LastAnswer.open(delegate, method, join(directory, name), log);
    return new DelegateLists(await ask(listPodSandbox, 'pods'), await ask(listContainers, 'containers'));
  }

  async pods(filter: PodSandboxFilter | undefined, signal: AbortSignal): Promise<PodSandbox[]> {
    const { items } = await this.#pods.get(signal);
    const { id = '', state, labelSelector = {} } = filter ?? {};
    return items.filter(
      (pod) =>
        pod.id.startsWith(id) &&
        (state === undefined || pod.state === state.state) &&
        hasLabels(pod.labels, labelSelector),
    );
  }

  async containers(filter: ContainerFilter | undefined, signal: AbortSignal): Promise<Container[]> {
    const { containers } = await this.#containers.get(signal);
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
