import type { Link } from '#link/link.ts';
import type { Machine } from '#vm/driver.ts';
import type { Surroundings } from '../parts.ts';
import type { MachineSize } from '../resources.ts';
import { rehearsedContainer } from './exercise.ts';

/** Processors that a machine needs for it, as the rest of the start goes on with one of them. */
const leastVcpus = 2;
/** Part of a core that must have been idle on the host since the start began. */
const leastIdle = 0.25;
/** Deadline of the guest, in `ms`. */
const timeoutMs = 120_000;

/** A start that is about to end. */
interface Started {
  readonly machine: Pick<Machine, 'accelerator'>;
  readonly guest: Pick<Link, 'call' | 'welcome'>;
  readonly size: MachineSize;
  /** Whether the machine was exercised while it waited in the pool. */
  readonly isExercised: boolean;
  /** Other starts under way. */
  readonly others: number;
}

type Watcher = Pick<Surroundings, 'monotonicNs' | 'idleMs'>;

/**
 * Watches the host from the beginning of a pod's start. The returned function has the guest make a container that is thrown
 * away. The pod's first container is made with the same code of kernel and crun: most of it is translated then, on a second
 * processor, while its image is attached. As that work is done twice, it must not take the time of other pods, so nothing
 * happens unless a core of the host was idle. Nothing depends on its success.
 */
export function watchForRehearsal(surroundings: Watcher): (started: Started) => Promise<void> {
  const look = async () => ({ atMs: Number(surroundings.monotonicNs()) / 1e6, idleMs: await surroundings.idleMs() });
  const first = look();
  first.catch(() => undefined); // reported where it is needed
  return async ({ machine, guest, size, isExercised, others }) => {
    const vcpus = Math.min((size.nominal ?? size).vcpus, (size.resources.cpuLimitMillis ?? Infinity) / 1000);
    if (isExercised || machine.accelerator !== 'tcg' || vcpus < leastVcpus || others > 0) return;
    const [before, now] = [await first, await look()];
    if (now.idleMs - before.idleMs < leastIdle * (now.atMs - before.atMs)) return;
    await guest.call('rehearse', rehearsedContainer(guest.welcome), AbortSignal.timeout(timeoutMs));
  };
}
