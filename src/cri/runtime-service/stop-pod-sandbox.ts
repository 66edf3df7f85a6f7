import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { untilAborted } from '#host/until-aborted.ts';
import type { StopPodSandboxRequest, StopPodSandboxResponseSchema } from '../schema/api_pb.ts';

/** Kills running containers, then ends the machine. An unknown or ended sandbox is not an error. */
export async function stopPodSandbox(
  { pods }: CriParts,
  { podSandboxId }: StopPodSandboxRequest,
  signal: AbortSignal,
): Promise<Answer<typeof StopPodSandboxResponseSchema>> {
  const pod = pods.findPod(podSandboxId);
  if (podSandboxId === '') throw new PodvmError('invalid', 'Cannot stop a pod sandbox: the request has no id');
  if (pod !== undefined) await untilAborted(pod.sandbox.stop(0), signal);
  return {};
}
