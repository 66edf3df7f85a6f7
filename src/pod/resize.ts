import { PodvmError } from '#base/errors.ts';
import { parseQuantity } from '#base/quantity.ts';
import type { Resources, Sandbox } from '#sandbox/sandbox.ts';
import { undoOf } from '#sandbox/resources.ts';
import type { PodContainer } from './schema/container.ts';
import type { ContainerSize } from './pods.ts';
import type { Pod } from './schema/objects.ts';
import { containerResources, podResources } from './spec/resources.ts';

/**
 * Returns the Pod with other limits of a container, as a changed file would have them. Errors: `notFound`; `invalid` for a
 * limit below the container's request or above the pod's own limit.
 */
export function withSize(pod: Pod, { container: name, memoryLimitBytes, cpuLimitMillis }: ContainerSize): Pod {
  const limits = {
    ...(memoryLimitBytes === undefined ? {} : { memory: String(memoryLimitBytes) }),
    ...(cpuLimitMillis === undefined ? {} : { cpu: `${cpuLimitMillis}m` }),
  };
  const { spec } = pod;
  let isFound = false;
  const changed = <C extends PodContainer>(container: C): C => {
    if (container.name !== name) return container;
    isFound = true;
    const { resources } = container;
    for (const [resource, limit] of Object.entries(limits)) {
      const named = resource as keyof typeof limits; // SAFE: a key of that very object
      checkLimit(name, named, limit, { request: resources.requests[named], most: spec.resources?.limits[named] });
    }
    return { ...container, resources: { ...resources, limits: { ...resources.limits, ...limits } } };
  };
  const next = {
    ...pod,
    spec: { ...spec, initContainers: spec.initContainers.map(changed), containers: spec.containers.map(changed) },
  };
  if (isFound) return next;
  throw new PodvmError('notFound', `Cannot resize ${pod.metadata.name}: it has no container ${name}`, {
    fix: `See \`podvm inspect ${pod.metadata.name}\` for the containers.`,
  });
}

function checkLimit(
  container: string,
  resource: string,
  limit: string,
  { request, most }: { readonly request: string | undefined; readonly most: string | undefined },
): void {
  const what = `Cannot resize container ${container}: its ${resource} limit must be`;
  if (nanoOf(limit) < nanoOf(request ?? '0')) {
    throw new PodvmError('invalid', `${what} at least its request of ${request}, got ${limit}`, {
      fix: 'Choose a higher limit: a request is not changed while the pod runs.',
    });
  }
  if (most !== undefined && nanoOf(limit) > nanoOf(most)) {
    throw new PodvmError('invalid', `${what} at most the pod's own limit of ${most}, got ${limit}`, {
      fix: 'Choose a lower limit: `spec.resources` of the pod bounds all its containers together.',
    });
  }
}

const nanoOf = (quantity: string): bigint => parseQuantity(quantity)?.nano ?? 0n;

/**
 * Gives a container of a running sandbox the limits that the Pod `next` has for it, and the sandbox their sum. Returns
 * sentences about limits that were reduced. What fails is undone. Errors:
 * `failedPrecondition` for memory that is in use; those of `Sandbox.resize` and `Container.update`.
 */
export async function resizeInPlace(
  sandbox: Pick<Sandbox, 'resize' | 'resources' | 'container' | 'stats'>,
  next: Pod,
  { container: name, ...size }: ContainerSize,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const container = sandbox.container(name);
  const isThere = container !== undefined && ['created', 'running'].includes(container.status.state);
  const before = { pod: sandbox.resources, container: container?.resources ?? {} };
  if (isThere && size.memoryLimitBytes !== undefined) {
    const { containers } = await sandbox.stats(signal);
    const its = containers.find(({ id }) => id === container.status.id);
    const usedBytes = Math.max(0, (its?.memoryBytes ?? 0) - (its?.inactiveFileBytes ?? 0));
    if (usedBytes > size.memoryLimitBytes) {
      throw new PodvmError(
        'failedPrecondition',
        `Cannot resize container ${name}: it uses ${usedBytes} bytes of memory, more than ${size.memoryLimitBytes}`,
        { fix: 'Choose a limit above its use: the kernel would end a process of it.' },
      );
    }
  }
  const ofPod = () => sandbox.resize(limitsIn(podResources(next.spec)), signal);
  const ofContainer = async () => (isThere ? await container.update(size, signal) : []);
  const grows = (size.memoryLimitBytes ?? 0) > (before.container.memoryLimitBytes ?? 0);
  const never = new AbortController().signal; // the end of the call must not leave half of it
  const undoPod = () => sandbox.resize(undoOf(before.pod, limitsIn(podResources(next.spec))), never);
  const undoContainer = async () => (isThere ? await container.update(undoOf(before.container, size), never) : []);
  const [first, second, undo] = grows ? [ofPod, ofContainer, undoPod] : [ofContainer, ofPod, undoContainer];
  const warnings = [...(await first())];
  try {
    warnings.push(...(await second()));
  } catch (error) {
    await undo().catch(() => undefined); // the first error says more
    throw error;
  }
  return warnings;
}

const limitsIn = ({ memoryLimitBytes, cpuLimitMillis }: Resources): Resources => ({
  ...(memoryLimitBytes === undefined ? {} : { memoryLimitBytes }),
  ...(cpuLimitMillis === undefined ? {} : { cpuLimitMillis }),
});

/** Limits of a container in words, for its event: `memory 128Mi, cpu 500m`. */
export function sizeText(container: PodContainer): string {
  const { memoryLimitBytes, cpuLimitMillis } = containerResources(container);
  const mib = 1024 * 1024;
  const memory =
    memoryLimitBytes === undefined
      ? 'none'
      : memoryLimitBytes % mib === 0
        ? `${memoryLimitBytes / mib}Mi`
        : String(memoryLimitBytes);
  return `memory ${memory}, cpu ${cpuLimitMillis === undefined ? 'none' : `${cpuLimitMillis}m`}`;
}
