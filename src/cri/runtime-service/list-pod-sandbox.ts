import type { KnownPod } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { hasLabels } from '../translate/labels.ts';
import { podOf } from '../translate/pod-status.ts';
import type {
  ListPodSandboxRequest,
  ListPodSandboxResponseSchema,
  PodSandboxFilter,
  PodSandboxSchema,
} from '../schema/api_pb.ts';

export async function listPodSandbox(
  parts: CriParts,
  { filter }: ListPodSandboxRequest,
): Promise<Answer<typeof ListPodSandboxResponseSchema>> {
  return { items: matchingPods(parts, filter) };
}

/** Returns matching pods, newest first, as containerd does. */
export function matchingPods(parts: CriParts, filter: PodSandboxFilter | undefined): Answer<typeof PodSandboxSchema>[] {
  const { state } = filter ?? {};
  return selectPods(parts, filter)
    .map((pod) => podOf(pod))
    .filter((pod) => state === undefined || pod.state === state.state)
    .toReversed();
}

/** Returns pods of any state that the filter selects, oldest first. */
export function selectPods({ pods }: CriParts, filter: PodSandboxFilter | undefined): readonly KnownPod[] {
  const { id = '', labelSelector = {} } = filter ?? {};
  const only = id === '' ? undefined : pods.findPod(id);
  const from: Iterable<KnownPod> = id === '' ? pods.pods : only === undefined ? [] : [only];
  return [...from].filter(({ config }) => hasLabels(config.labels, labelSelector));
}
