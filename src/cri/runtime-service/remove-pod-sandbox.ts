import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { untilAborted } from '#host/until-aborted.ts';
import {
  ContainerEventType,
  type RemovePodSandboxRequest,
  type RemovePodSandboxResponseSchema,
} from '../schema/api_pb.ts';

/** Stops the sandbox if necessary, and removes it with its containers. An unknown one is not an error. */
export async function removePodSandbox(
  { pods, events }: CriParts,
  { podSandboxId }: RemovePodSandboxRequest,
  signal: AbortSignal,
): Promise<Answer<typeof RemovePodSandboxResponseSchema>> {
  if (podSandboxId === '') throw new PodvmError('invalid', 'Cannot remove a pod sandbox: the request has no id');
  const pod = pods.findPod(podSandboxId);
  if (pod === undefined) return {};
  const removal = pod.sandbox.remove().then(async () => {
    if (pods.findPod(pod.sandbox.id) === undefined) return; // another call was first
    const containers = [...pod.containers.keys()];
    await pods.removePod(pod);
    for (const id of [...containers, pod.sandbox.id]) {
      events.tell(ContainerEventType.CONTAINER_DELETED_EVENT, id, pod);
    }
  });
  await untilAborted(removal, signal);
  return {};
}
