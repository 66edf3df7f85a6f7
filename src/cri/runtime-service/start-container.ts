import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { untilAborted } from '../until-aborted.ts';
import { ContainerEventType, type StartContainerRequest, type StartContainerResponseSchema } from '../schema/api_pb.ts';

/** A start cannot be taken back: it goes on when its caller leaves, bounded by the link's own deadline. */
const never = new AbortController().signal;

/** Errors: `notFound`; `failedPrecondition` unless it was just created, with why it could not start. */
export async function startContainer(
  { pods, events }: CriParts,
  { containerId }: StartContainerRequest,
  signal: AbortSignal,
): Promise<Answer<typeof StartContainerResponseSchema>> {
  const { container, pod } = pods.container(containerId);
  await untilAborted(container.start(never), signal);
  events.tell(ContainerEventType.CONTAINER_STARTED_EVENT, container.status.id, pod);
  return {};
}
