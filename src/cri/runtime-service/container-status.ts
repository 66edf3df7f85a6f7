import type { KnownContainer } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerStatusOf } from '../translate/container-status.ts';
import type { ContainerStatusRequest, ContainerStatusResponseSchema } from '../schema/api_pb.ts';

/** Returns the status of a container. Errors: `notFound`. */
export async function containerStatus(
  { pods }: CriParts,
  { containerId, verbose }: ContainerStatusRequest,
): Promise<Answer<typeof ContainerStatusResponseSchema>> {
  const known = pods.container(containerId);
  return { status: containerStatusOf(known), info: verbose ? { info: JSON.stringify(detailsOf(known)) } : {} };
}

/** Returns verbose details. The pid is the VMM's: the container's own exists only in the guest. */
function detailsOf({ pod, config, container }: KnownContainer): unknown {
  const { vmmPid, accelerator } = pod.sandbox.status;
  const { mounts } = container.status; // includes the mode of each mount
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
