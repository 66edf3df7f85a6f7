import type { KnownPod } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerStatusOf } from '../translate/container-status.ts';
import { podStatusOf } from '../translate/pod-status.ts';
import type { PodSandboxStatusRequest, PodSandboxStatusResponseSchema } from '../schema/api_pb.ts';

/** Errors: `notFound`. */
export async function podSandboxStatus(
  { pods, clock }: CriParts,
  { podSandboxId, verbose }: PodSandboxStatusRequest,
): Promise<Answer<typeof PodSandboxStatusResponseSchema>> {
  const pod = pods.pod(podSandboxId);
  return {
    status: podStatusOf(pod),
    info: verbose ? { info: JSON.stringify(machineOf(pod)) } : {},
    containersStatuses: [...pod.containers.values()].map(containerStatusOf),
    timestamp: BigInt(clock.now()) * 1_000_000n,
  };
}

/** What there is to know of the machine. The console's path is for a person who debugs the guest. */
function machineOf({ sandbox }: KnownPod): unknown {
  const { accelerator, vmmPid, failure, phases } = sandbox.status;
  return { accelerator, pid: vmmPid, failure, consolePath: sandbox.consolePath, startPhasesMs: phases };
}
