import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { podResourcesOf } from '../translate/resources.ts';
import type { UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponseSchema } from '../schema/api_pb.ts';

/** Resizes the pod in its machine. Errors: `notFound`, those of `Sandbox.resize`. */
export async function updatePodSandboxResources(
  { pods, log }: CriParts,
  { podSandboxId, resources, overhead }: UpdatePodSandboxResourcesRequest,
  signal: AbortSignal,
): Promise<Answer<typeof UpdatePodSandboxResourcesResponseSchema>> {
  const warnings = await pods.pod(podSandboxId).sandbox.resize(podResourcesOf(resources, overhead), signal);
  for (const warning of warnings) log.warn('a limit was reduced', { sandbox: podSandboxId, warning });
  return {};
}
