import { writeFile } from 'node:fs/promises';
import { rawText } from '#base/guest-text.ts';
import type { Container, ContainerExit, Sandbox } from '#sandbox/sandbox.ts';
import type { KnownContainer, KnownPod } from './known-pods.ts';
import type { CriParts } from './parts.ts';
import { ContainerEventType, type ContainerConfig, type PodSandboxConfig } from './schema/api_pb.ts';
import { terminationMount } from './translate/container-spec.ts';

/** Joins a sandbox with its client's configuration, and reports its end from now on. */
export function knowPod(
  parts: Pick<CriParts, 'events'>,
  sandbox: Sandbox,
  config: PodSandboxConfig,
  runtimeHandler: string,
): KnownPod {
  const pod: KnownPod = { sandbox, config, runtimeHandler, containers: new Map() };
  void sandbox.ended.then(() => parts.events.tell(ContainerEventType.CONTAINER_STOPPED_EVENT, sandbox.id, pod));
  return pod;
}

/** Joins a container with its client's configuration, reports its end, and writes its termination message. */
export function knowContainer(
  parts: Pick<CriParts, 'events' | 'log'>,
  pod: KnownPod,
  container: Container,
  { config, resources }: Pick<KnownContainer, 'config' | 'resources'>,
): KnownContainer {
  const known: KnownContainer = { container, config, pod, resources, isEndKnown: false };
  void container.exited.then(async (exit) => {
    await leaveMessage(parts, config, exit);
    known.isEndKnown = true;
    parts.events.tell(ContainerEventType.CONTAINER_STOPPED_EVENT, container.status.id, pod);
  });
  return known;
}

/** Writes the container's termination message to the file that a kubelet reads. */
async function leaveMessage(
  { log }: Pick<CriParts, 'log'>,
  config: ContainerConfig,
  { message }: ContainerExit,
): Promise<void> {
  const file = terminationMount(config);
  if (file === undefined || message === undefined) return;
  try {
    await writeFile(file.hostPath, rawText(message));
  } catch (error) {
    log.error('termination message not written', error, { container: config.metadata?.name });
  }
}
