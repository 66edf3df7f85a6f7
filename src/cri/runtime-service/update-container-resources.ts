import { totalmem } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import type { CriParts } from '../parts.ts';
import type { Answer } from '../rpc/service.ts';
import { memoryRequestOf, resourcesOf } from '../translate/resources.ts';
import type {
  LinuxContainerResources,
  UpdateContainerResourcesRequest,
  UpdateContainerResourcesResponseSchema,
} from '../schema/api_pb.ts';

/**
 * Changes limits of a running container; zero keeps the current value. A limit above the node's is reduced, and logged.
 * Errors: `notFound`, those of `Container.update`.
 */
export async function updateContainerResources(
  { pods, log }: CriParts,
  { containerId, linux }: UpdateContainerResourcesRequest,
  signal: AbortSignal,
): Promise<Answer<typeof UpdateContainerResourcesResponseSchema>> {
  const known = pods.container(containerId);
  if (linux === undefined) throw new PodvmError('invalid', 'Cannot change limits: the request has no Linux resources');
  const warnings = await known.container.update(
    { ...resourcesOf(linux), ...memoryRequestOf(linux, totalmem()) },
    signal,
  );
  for (const warning of warnings) log.warn('a limit was reduced', { container: containerId, warning });
  await pods.setResources(known, merged(known.resources, linux));
  return {};
}

function merged(before: LinuxContainerResources | undefined, next: LinuxContainerResources): LinuxContainerResources {
  if (before === undefined) return next;
  const given = Object.entries(next).filter(([, value]) => typeof value !== 'bigint' || value !== 0n);
  return { ...before, ...Object.fromEntries(given) };
}
