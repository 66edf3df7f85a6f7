import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { untilAborted } from '#host/until-aborted.ts';
import type { StopPodSandboxRequest, StopPodSandboxResponseSchema } from '../schema/api_pb.ts';

/** Kills what still runs, then ends the machine. Neither an unknown nor an ended sandbox is an error. */
export async function stopPodSandbox(
  { pods }: CriParts,
  { podSandboxId }: StopPodSandboxRequest,
  signal: AbortSignal,
): Promise<Answer<typeof StopPodSandboxResponseSchema>> {
  const pod = pods.findPod(podSandboxId);
  if (podSandboxId === '') throw new PodvmError('invalid', 'Cannot stop a pod sandbox: no id was given');
  if (pod !== undefined) await untilAborted(pod.sandbox.stop(0), signal);
  return {};
}
