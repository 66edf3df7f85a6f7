import { PodvmError } from '#base/errors.ts';
import { knowPod } from '../know.ts';
import type { KnownPod } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import { podKeyOf } from '../pod-starts.ts';
import type { Answer } from '../rpc/service.ts';
import { sandboxSpecOf } from '../translate/sandbox-spec.ts';
import { ContainerEventType, type RunPodSandboxRequest, type RunPodSandboxResponseSchema } from '../schema/api_pb.ts';

/**
 * Makes a sandbox. A second call for the same pod and attempt gets the first one's, also during its start. Errors:
 * those of `sandboxSpecOf`, `PodStarts` and `Sandboxes.run`.
 */
export async function runPodSandbox(
  parts: CriParts,
  { config, runtimeHandler }: RunPodSandboxRequest,
  signal: AbortSignal,
): Promise<Answer<typeof RunPodSandboxResponseSchema>> {
  if (config === undefined) throw new PodvmError('invalid', 'Cannot run a pod sandbox: the request has no config');
  const spec = sandboxSpecOf(config, runtimeHandler);
  const start = async (starting: AbortSignal): Promise<KnownPod> => {
    const sandbox = await parts.sandboxes.run(spec, starting);
    const pod = knowPod(parts, sandbox, config, runtimeHandler);
    for (const warning of sandbox.warnings) parts.log.warn('a limit was reduced', { sandbox: sandbox.id, warning });
    const recorded = parts.pods.addPod(pod);
    // Before anything is waited for: the machine may end meanwhile, which is told after them.
    parts.events.tell(ContainerEventType.CONTAINER_CREATED_EVENT, sandbox.id, pod);
    parts.events.tell(ContainerEventType.CONTAINER_STARTED_EVENT, sandbox.id, pod);
    await recorded;
    return pod;
  };
  const pod = await parts.starts.run(podKeyOf({ config }), start, signal);
  return { podSandboxId: pod.sandbox.id };
}
