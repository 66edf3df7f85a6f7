import { PodvmError } from '#base/errors.ts';
import { knowContainer } from '../know.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerSpecOf } from '../translate/container-spec.ts';
import {
  ContainerEventType,
  type CreateContainerRequest,
  type CreateContainerResponseSchema,
} from '../schema/api_pb.ts';

/**
 * Makes a container that can be started. A cancelled call leaves none. Errors: `notFound` for sandbox or image, those
 * of `containerSpecOf`, and `Sandbox.createContainer`.
 */
export async function createContainer(
  parts: CriParts,
  { podSandboxId, config, sandboxConfig }: CreateContainerRequest,
  signal: AbortSignal,
): Promise<Answer<typeof CreateContainerResponseSchema>> {
  if (config === undefined) throw new PodvmError('invalid', 'Cannot create a container: the request has no config');
  const pod = parts.pods.pod(podSandboxId);
  const { logDirectory } = sandboxConfig ?? pod.config;
  const spec = await containerSpecOf(config, { logDirectory, linux: pod.config.linux });
  const container = await pod.sandbox.createContainer(spec, signal);
  const known = knowContainer(parts, pod, container, { config, resources: config.linux?.resources });
  await parts.pods.addContainer(known);
  const { id } = container.status;
  for (const warning of container.warnings) parts.log.warn('a limit was reduced', { container: id, warning });
  parts.events.tell(ContainerEventType.CONTAINER_CREATED_EVENT, id, pod);
  if (container.status.state === 'exited') await container.exited; // not created: report it from the start
  return { containerId: id };
}
