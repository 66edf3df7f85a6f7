import { writeFile } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { rawText } from '#base/guest-text.ts';
import type { ContainerExit } from '#sandbox/sandbox.ts';
import type { KnownContainer } from '../known-pods.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { containerSpecOf, terminationMount } from '../translate/container-spec.ts';
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
  const known: KnownContainer = { container, config, pod, resources: config.linux?.resources, isEndKnown: false };
  parts.pods.addContainer(known);
  const { id } = container.status;
  for (const warning of container.warnings) parts.log.warn('a limit was reduced', { container: id, warning });
  parts.events.tell(ContainerEventType.CONTAINER_CREATED_EVENT, id, pod);
  void container.exited.then(async (exit) => {
    await leaveMessage(parts, known, exit);
    known.isEndKnown = true;
    parts.events.tell(ContainerEventType.CONTAINER_STOPPED_EVENT, id, pod);
  });
  if (container.status.state === 'exited') await container.exited; // not created: report it from the start
  return { containerId: id };
}

/** Writes the container's termination message to the file that a kubelet reads. */
async function leaveMessage({ log }: CriParts, { config }: KnownContainer, { message }: ContainerExit): Promise<void> {
  const file = terminationMount(config);
  if (file === undefined || message === undefined) return;
  try {
    await writeFile(file.hostPath, rawText(message));
  } catch (error) {
    log.error('termination message not written', error, { container: config.metadata?.name });
  }
}
