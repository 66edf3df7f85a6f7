import { messageOf } from '#base/errors.ts';
import type { SandboxStats } from '#sandbox/sandbox.ts';
import type { KnownPod } from './known-pods.ts';
import type { CriParts } from './parts.ts';

/** A guest that does not answer in time is left out of lists, which come every few seconds; `ms`. */
const listTimeoutMs = 5000;

/** Figures of each pod that runs and answers; pods side by side. */
export async function measureAll(
  { log }: CriParts,
  pods: Iterable<KnownPod>,
  signal: AbortSignal,
): Promise<ReadonlyMap<KnownPod, SandboxStats>> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(listTimeoutMs)]);
  const running = [...new Set(pods)].filter(({ sandbox }) => sandbox.status.state === 'ready');
  const measured = await Promise.all(
    running.map(async (pod) => {
      try {
        return [[pod, await pod.sandbox.stats(deadline)] as const];
      } catch (error) {
        signal.throwIfAborted();
        log.debug('pod not measured', { sandbox: pod.sandbox.id, why: messageOf(error) });
        return [];
      }
    }),
  );
  return new Map(measured.flat());
}
