import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { ContainerEventType, type StartContainerRequest, type StartContainerResponseSchema } from '../schema/api_pb.ts';

/** Never aborts: a start cannot be undone and continues without its caller, limited by the link's own deadline. */
const never = new AbortController().signal;

/**
 * Starts the container. One that runs already was started by an earlier call. Errors: `notFound`; `failedPrecondition`
 * when it has ended.
 */
export async function startContainer(
  { pods, events }: CriParts,
  { containerId }: StartContainerRequest,
  signal: AbortSignal,
): Promise<Answer<typeof StartContainerResponseSchema>> {
  const { container, pod } = pods.container(containerId);
  const { state, name, exit } = container.status;
  if (state === 'exited') {
    throw new PodvmError('failedPrecondition', `Cannot start container ${name}: ${exit?.why ?? 'it has ended'}`);
  }
  await untilAborted(container.start(never), signal);
  events.tell(ContainerEventType.CONTAINER_STARTED_EVENT, container.status.id, pod);
  return {};
}
