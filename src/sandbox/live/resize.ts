import { PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import {
  capResources,
  type Capped,
  cgroupResourcesOf,
  checkResources,
  hostLimitsOf,
  mostOfNode,
  type SizeLimits,
  undoOf,
  withChange,
} from '../resources.ts';
import type { LimitChange, Resources, SandboxSpec } from '../sandbox.ts';

interface Resizable {
  readonly machine: Pick<Machine, 'limitHost' | 'memoryMiB'>;
  readonly guest: Pick<Link, 'call'>;
  readonly limits: SizeLimits;
}

/**
 * Changes the limits of a running pod: two cgroup writes, one in the guest and one on the host, ordered so that the host
 * never gives less than the guest takes. If the second fails, the first is undone. Limits above the machine's size are
 * reduced to it. Errors: `invalid`, those of machine and agent.
 */
export async function resize(
  { namespace, name, resources: now }: Pick<SandboxSpec, 'namespace' | 'name' | 'resources'>,
  change: LimitChange,
  { machine, guest, limits }: Resizable,
  signal: AbortSignal,
): Promise<Capped> {
  const what = `pod ${namespace}/${name}`;
  checkResources(what, withChange(now, change));
  const most = { ...mostOfNode(limits), memoryMiB: machine.memoryMiB };
  const { resources: capped, warnings } = capResources(what, change, most);
  const wanted = withChange(now, capped);
  const inGuest = (resources: LimitChange, until: AbortSignal) =>
    guest.call('updatePod', { resources: cgroupResourcesOf(resources) }, until);
  const onHost = (resources: Resources) => limitOnHost(machine, { resources }, limits);
  const never = new AbortController().signal; // the end of the call must not leave half of it
  const grows = (wanted.memoryLimitBytes ?? Infinity) > (now.memoryLimitBytes ?? Infinity);
  const [first, second, undo] = grows
    ? [() => onHost(wanted), () => inGuest(capped, signal), () => onHost(now)]
    : [() => inGuest(capped, signal), () => onHost(wanted), () => inGuest(undoOf(now, change), never)];
  await first();
  try {
    await second();
  } catch (error) {
    await undo().catch(() => undefined); // the first error says more
    throw error;
  }
  return { resources: wanted, warnings };
}

/** Does nothing on a host without cgroups for podvm, which was logged when the machine started. */
export async function limitOnHost(
  machine: Pick<Machine, 'limitHost' | 'memoryMiB'>,
  { resources, cgroupParent }: { readonly resources: Resources; readonly cgroupParent?: string | undefined },
  limits: SizeLimits,
): Promise<void> {
  try {
    const place = cgroupParent === undefined ? {} : { cgroupParent };
    await machine.limitHost({ ...hostLimitsOf(resources, machine.memoryMiB, limits), ...place });
  } catch (error) {
    if (!(error instanceof PodvmError && error.kind === 'unsupported')) throw error;
  }
}
