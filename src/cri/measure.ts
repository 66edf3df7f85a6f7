import { messageOf } from '#base/errors.ts';
import { openDeadline } from '#host/deadline.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import type { KnownPod } from './known-pods.ts';
import type { CriParts } from './parts.ts';

/** Time to wait for a guest in lists, which are requested every few seconds, in `ms`. A slow guest is skipped. */
const listTimeoutMs = 5000;

/** Returns the measurements of each running pod that answers, concurrently. */
export async function measureAll<T>(
  { log }: CriParts,
  pods: Iterable<KnownPod>,
  measure: (sandbox: Sandbox, signal: AbortSignal) => Promise<T>,
  signal: AbortSignal,
): Promise<ReadonlyMap<KnownPod, T>> {
  using deadline = openDeadline(listTimeoutMs, signal);
  const running = [...new Set(pods)].filter(({ sandbox }) => sandbox.state === 'ready');
  const measured = await Promise.all(
    running.map(async (pod) => {
      try {
        return [[pod, await measure(pod.sandbox, deadline.signal)] as const];
      } catch (error) {
        signal.throwIfAborted();
        log.debug('pod not measured', { sandbox: pod.sandbox.id, why: messageOf(error) });
        return [];
      }
    }),
  );
  return new Map(measured.flat());
}

/** Returns the `stats` of each pod. */
export const statsOfAll = (parts: CriParts, pods: Iterable<KnownPod>, signal: AbortSignal) =>
  measureAll(parts, pods, (sandbox, deadline) => sandbox.stats(deadline), signal);
