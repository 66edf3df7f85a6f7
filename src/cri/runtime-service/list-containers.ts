import type { KnownContainer } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerOf } from '../translate/container-status.ts';
import { hasLabels } from '../translate/labels.ts';
import type {
  ContainerFilter,
  ContainerSchema,
  ListContainersRequest,
  ListContainersResponseSchema,
} from '../schema/api_pb.ts';

export async function listContainers(
  parts: CriParts,
  { filter }: ListContainersRequest,
): Promise<Answer<typeof ListContainersResponseSchema>> {
  return { containers: matchingContainers(parts, filter) };
}

/** Returns matching containers, newest first, as containerd does. */
export function matchingContainers(
  parts: CriParts,
  filter: ContainerFilter | undefined,
): Answer<typeof ContainerSchema>[] {
  const { state } = filter ?? {};
  return selectContainers(parts, filter ?? {})
    .map(containerOf)
    .filter((container) => state === undefined || container.state === state.state)
    .toReversed();
}

interface Selection {
  readonly id?: string;
  readonly podSandboxId?: string;
  readonly labelSelector?: Readonly<Record<string, string>>;
}

/** Returns selected containers, oldest first. */
export function selectContainers(
  { pods }: CriParts,
  { id = '', podSandboxId = '', labelSelector = {} }: Selection,
): KnownContainer[] {
  const only = id === '' ? undefined : pods.findContainer(id);
  const from: Iterable<KnownContainer> = id === '' ? pods.containers : only === undefined ? [] : [only];
  const pod = podSandboxId === '' ? undefined : pods.findPod(podSandboxId);
  return [...from].filter(
    (known) => (podSandboxId === '' || known.pod === pod) && hasLabels(known.config.labels, labelSelector),
  );
}
