import { openDeadline } from '#host/deadline.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import type { KnownPod } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerStatusOf } from '../translate/container-status.ts';
import { podStatusOf } from '../translate/pod-status.ts';
import type { PodSandboxStatusRequest, PodSandboxStatusResponseSchema } from '../schema/api_pb.ts';

/** Time to wait for the statistics of a pod, which may hang, in `ms`. */
const statsTimeoutMs = 2000;

/** Returns the status of a pod. Errors: `notFound`. */
export async function podSandboxStatus(
  { pods, clock }: CriParts,
  { podSandboxId, verbose }: PodSandboxStatusRequest,
  signal: AbortSignal,
): Promise<Answer<typeof PodSandboxStatusResponseSchema>> {
  const pod = pods.pod(podSandboxId);
  return {
    status: podStatusOf(pod),
    info: verbose ? { info: JSON.stringify(await machineOf(pod, signal)) } : {},
    containersStatuses: [...pod.containers.values()].map(containerStatusOf),
    timestamp: BigInt(clock.now()) * 1_000_000n,
  };
}

/** Returns details of the machine. The console's path is for debugging the guest. */
async function machineOf({ sandbox }: KnownPod, signal: AbortSignal): Promise<unknown> {
  const { accelerator, parts, vmmPid, failure, leftAlone, phases } = sandbox.status;
  using deadline = openDeadline(statsTimeoutMs, signal);
  const stats = await statsOf(sandbox, deadline.signal);
  const { consolePath } = sandbox;
  return { accelerator, parts, pid: vmmPid, failure, leftAlone, consolePath, startPhasesMs: phases, stats };
}

/**
 * Returns usage of guest and VMM. Undefined for a machine that has ended or hangs; the other details are still
 * returned.
 */
async function statsOf(sandbox: Sandbox, signal: AbortSignal): Promise<unknown> {
  if (sandbox.state !== 'ready') return undefined;
  try {
    const [stats, vmmPssKiB] = await Promise.all([sandbox.stats(signal), sandbox.vmmPssKiB()]);
    return { ...stats, vmmPssKiB };
  } catch {
    return undefined;
  }
}
