import { deadlineAfter, pause, type Clock } from '#host/clock.ts';
import { check, type CheckResult, type CheckTarget } from './check.ts';
import type { Probe } from '../schema/probe.ts';

export type ProbeKind = 'startup' | 'liveness' | 'readiness';

/** Number of consecutive equal results of a probe. */
export interface ProbeCount {
  readonly isSuccess: boolean;
  readonly times: number;
}

/** Returns the next count and the settled result; undefined below the thresholds. */
export function countResult(
  count: ProbeCount | undefined,
  isSuccess: boolean,
  probe: Pick<Probe, 'successThreshold' | 'failureThreshold'>,
): { readonly count: ProbeCount; readonly settled: boolean | undefined } {
  const times = count?.isSuccess === isSuccess ? count.times + 1 : 1;
  const threshold = isSuccess ? probe.successThreshold : probe.failureThreshold;
  return { count: { isSuccess, times }, settled: times >= threshold ? isSuccess : undefined };
}

export interface ProbeListener {
  /** Called for every failed probe. */
  failed(kind: ProbeKind, message: string): void;
  /** Called when a threshold of consecutive results is reached; `stop` ends this probe. */
  settled(kind: ProbeKind, isSuccess: boolean): 'continue' | 'stop';
}

/** Probes until the listener stops it or `signal` aborts. `sinceMs`: start of the container, as `monotonicMs` of the clock. */
export async function runProbe(
  kind: ProbeKind,
  probe: Probe,
  target: CheckTarget,
  clock: Clock,
  sinceMs: number,
  listener: ProbeListener,
  signal: AbortSignal,
): Promise<void> {
  await pause(clock, sinceMs + probe.initialDelaySeconds * 1000 - clock.monotonicMs(), signal);
  let count: ProbeCount | undefined;
  const isPaused = () => target.sandbox.status.isPaused === true;
  while (!signal.aborted) {
    const result = isPaused() ? undefined : await checkOnce(probe, target, clock, signal);
    if (signal.aborted) return;
    if (result === undefined || isPaused()) {
      await pause(clock, probe.periodSeconds * 1000, signal);
      continue; // a paused pod cannot answer
    }
    if (!result.isSuccess) listener.failed(kind, result.message);
    const next = countResult(count, result.isSuccess, probe);
    count = next.count;
    if (next.settled !== undefined && listener.settled(kind, next.settled) === 'stop') return;
    await pause(clock, probe.periodSeconds * 1000, signal);
  }
}

async function checkOnce(probe: Probe, target: CheckTarget, clock: Clock, signal: AbortSignal): Promise<CheckResult> {
  using deadline = deadlineAfter(clock, probe.timeoutSeconds * 1000, signal);
  return await check(probe, target, deadline.signal);
}
