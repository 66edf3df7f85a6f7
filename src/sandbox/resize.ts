import { PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import { cgroupResourcesOf, checkResources, hostLimitsOf, type SizeLimits } from './resources.ts';
import type { Resources, SandboxSpec } from './sandbox.ts';

interface Resizable {
  readonly machine: Pick<Machine, 'limitHost' | 'memoryMiB'>;
  readonly guest: Pick<Link, 'call'>;
  readonly limits: SizeLimits;
}

/**
 * Changes what a running pod may use: two cgroup writes, one in the guest and one on the host, in the order in which the
 * host never gives less than the guest takes. What is undefined stays. Errors: `invalid`, `exhausted` (more than its
 * machine has), what machine and agent say.
 */
export async function resize(
  { namespace, name, resources: now }: Pick<SandboxSpec, 'namespace' | 'name' | 'resources'>,
  next: Resources,
  { machine, guest, limits }: Resizable,
  signal: AbortSignal,
): Promise<Resources> {
  const wanted = { ...now, ...next };
  const what = `pod ${namespace}/${name}`;
  checkResources(what, wanted);
  const { memoryLimitBytes } = wanted;
  if (memoryLimitBytes !== undefined && memoryLimitBytes > machine.memoryMiB * 1024 * 1024) {
    throw new PodvmError(
      'exhausted',
      `Cannot resize ${what}: its machine has ${machine.memoryMiB} MiB, got a limit of ${memoryLimitBytes} bytes`,
      { fix: 'Remove the pod and create it again with the new limit.' },
    );
  }
  const inGuest = () => guest.call('updatePod', { resources: cgroupResourcesOf(next) }, signal);
  const onHost = () => limitOnHost(machine, wanted, limits);
  const grows = (memoryLimitBytes ?? Infinity) > (now.memoryLimitBytes ?? Infinity);
  for (const step of grows ? [onHost, inGuest] : [inGuest, onHost]) await step();
  return wanted;
}

/** A host without cgroups for us has been told of when the machine started. */
export async function limitOnHost(
  machine: Pick<Machine, 'limitHost' | 'memoryMiB'>,
  resources: Resources,
  limits: SizeLimits,
): Promise<void> {
  try {
    await machine.limitHost(hostLimitsOf(resources, machine.memoryMiB, limits));
  } catch (error) {
    if (!(error instanceof PodvmError && error.kind === 'unsupported')) throw error;
  }
}
