import type { KnownContainer } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerStatusOf } from '../translate/container-status.ts';
import type { ContainerStatusRequest, ContainerStatusResponseSchema } from '../schema/api_pb.ts';

/** Errors: `notFound`. */
export async function containerStatus(
  { pods }: CriParts,
  { containerId, verbose }: ContainerStatusRequest,
): Promise<Answer<typeof ContainerStatusResponseSchema>> {
  const known = pods.container(containerId);
  return { status: containerStatusOf(known), info: verbose ? { info: JSON.stringify(detailsOf(known)) } : {} };
}

/** The pid is the machine's VMM: the container's own is the guest's business. */
function detailsOf({ pod, config, container }: KnownContainer): unknown {
  const { vmmPid, accelerator } = pod.sandbox.status;
  const { mounts } = container.status; // each with its mode
  const { tty, stdin, stdinOnce, command, args, workingDir } = config;
  return {
    sandboxID: pod.sandbox.id,
    pid: vmmPid,
    accelerator,
    tty,
    stdin,
    stdinOnce,
    command,
    args,
    workingDir,
    mounts,
  };
}
