import { messageOf } from '#base/errors.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import type { KnownPod } from './known-pods.ts';
import type { CriParts } from './parts.ts';

/** A guest that does not answer in time is left out of lists, which come every few seconds; `ms`. */
const listTimeoutMs = 5000;

/** Figures of each pod that runs and answers; pods side by side. */
export async function measureAll<T>(
  { log }: CriParts,
  pods: Iterable<KnownPod>,
  measure: (sandbox: Sandbox, signal: AbortSignal) => Promise<T>,
  signal: AbortSignal,
): Promise<ReadonlyMap<KnownPod, T>> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(listTimeoutMs)]);
  const running = [...new Set(pods)].filter(({ sandbox }) => sandbox.status.state === 'ready');
  const measured = await Promise.all(
    running.map(async (pod) => {
      try {
        return [[pod, await measure(pod.sandbox, deadline)] as const];
      } catch (error) {
        signal.throwIfAborted();
        log.debug('pod not measured', { sandbox: pod.sandbox.id, why: messageOf(error) });
        return [];
      }
    }),
  );
  return new Map(measured.flat());
}

/** What `stats` of each pod says. */
export const statsOfAll = (parts: CriParts, pods: Iterable<KnownPod>, signal: AbortSignal) =>
  measureAll(parts, pods, (sandbox, deadline) => sandbox.stats(deadline), signal);
