import { PodvmError } from '#base/errors.ts';
import type { KnownContainer } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { untilAborted } from '#host/until-aborted.ts';
import {
  ContainerEventType,
  type RemoveContainerRequest,
  type RemoveContainerResponseSchema,
} from '../schema/api_pb.ts';

/** Never aborts, so that a removal is always completed. */
const never = new AbortController().signal;

/** Kills the container if it runs, and removes it; its log stays. An unknown one is not an error. */
export async function removeContainer(
  { pods, events }: CriParts,
  { containerId }: RemoveContainerRequest,
  signal: AbortSignal,
): Promise<Answer<typeof RemoveContainerResponseSchema>> {
  if (containerId === '') throw new PodvmError('invalid', 'Cannot remove a container: the request has no id');
  const known = pods.findContainer(containerId);
  if (known === undefined) return {};
  const { id } = known.container.status;
  const removal = removeFromGuest(known).then(async () => {
    if (pods.findContainer(id) === undefined) return; // another call was first
    await pods.removeContainer(known);
    events.tell(ContainerEventType.CONTAINER_DELETED_EVENT, id, known.pod);
  });
  await untilAborted(removal, signal);
  return {};
}

/** Removes the container from the guest, unless its sandbox has ended. */
async function removeFromGuest({ container, pod }: KnownContainer): Promise<void> {
  const isAlive = () => pod.sandbox.state === 'ready';
  try {
    if (!isAlive()) return;
    await container.stop(0, never);
    await container.remove(never);
  } catch (error) {
    if (isAlive()) throw error;
  }
}
