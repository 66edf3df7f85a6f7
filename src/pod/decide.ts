import type { PodFinish, PodPhase } from './pods.ts';
import type { ContainerRun, Ending, PodState } from './pod-state.ts';

/** An action for the driver, which reports its result as an event before the next decision. */
export type Action =
  | { readonly kind: 'start'; readonly name: string; readonly attempt: number }
  | { readonly kind: 'stop'; readonly name: string; readonly why: string; readonly graceMs: number }
  /** SIGKILL for a container that is stopping, or an abort of one that is being created. */
  | { readonly kind: 'kill'; readonly name: string }
  | { readonly kind: 'abortStart'; readonly name: string }
  | { readonly kind: 'end'; readonly ending: Ending }
  /** No container runs any more: stop the sandbox. */
  | { readonly kind: 'finish' };

export interface Decision {
  readonly actions: readonly Action[];
  /** Time of the next decision if no event occurs. */
  readonly wakeAtMs?: number;
}

/** Kubelet's minimum grace for a container that is stopped late, in `ms`. */
const leastGraceMs = 2000;

/** Returns the actions that follow from the state at `nowMs`. Pure function. */
export function decide(state: PodState, nowMs: number): Decision {
  if (state.ending !== undefined) return windDown(state, state.ending, nowMs);
  const ending = reasonToEnd(state, nowMs);
  if (ending !== undefined) return { actions: [{ kind: 'end', ending }] };
  if (!state.hasSandbox) return wakeAt([], [deadlineOf(state)]);
  const due = containersThatMayRun(state);
  const starts = due.flatMap(({ plan, run, attempt }) =>
    run.at === 'waiting' && run.notBeforeMs <= nowMs ? [{ kind: 'start', name: plan.name, attempt } as const] : [],
  );
  const stops = state.containers.flatMap(({ plan, run }) =>
    run.at === 'running' && run.stopWish !== undefined
      ? [{ kind: 'stop', name: plan.name, ...run.stopWish } as const]
      : [],
  );
  const waits = due.flatMap(({ run }) => (run.at === 'waiting' && run.notBeforeMs > nowMs ? [run.notBeforeMs] : []));
  return wakeAt([...starts, ...stops], [deadlineOf(state), ...waits]);
}

function wakeAt(actions: readonly Action[], times: readonly (number | undefined)[]): Decision {
  const given = times.filter((time) => time !== undefined);
  return given.length === 0 ? { actions } : { actions, wakeAtMs: Math.min(...given) };
}

function deadlineOf(state: PodState): number | undefined {
  const { activeDeadlineMs } = state.plan;
  return activeDeadlineMs === undefined ? undefined : state.beganMs + activeDeadlineMs;
}

function reasonToEnd(state: PodState, nowMs: number): Ending | undefined {
  const killAtMs = nowMs + state.plan.graceMs;
  if ((deadlineOf(state) ?? Infinity) <= nowMs) {
    const message = 'Pod was active on the node longer than the specified deadline';
    return { reason: 'DeadlineExceeded', message, exitCode: 124, killAtMs };
  }
  const hasFailedInit = state.containers.some(({ plan, run, last }) => {
    return plan.kind === 'init' && run.at === 'ended' && last?.exitCode !== 0;
  });
  const mains = state.containers.filter(({ plan }) => plan.kind === 'main');
  if (hasFailedInit || mains.every(({ run }) => run.at === 'ended')) return { reason: 'Completed', killAtMs };
  return undefined;
}

/**
 * Returns containers up to the first init container that has not finished or sidecar that has never started, or all.
 */
function containersThatMayRun(state: PodState): ContainerRun[] {
  const may: ContainerRun[] = [];
  for (const container of state.containers) {
    if (container.plan.kind === 'main') {
      may.push(container);
      continue;
    }
    if (container.run.at !== 'ended') may.push(container);
    if (!isPassed(container)) return may;
  }
  return may;
}

function isPassed({ plan, run, last, hadStarted }: ContainerRun): boolean {
  return plan.kind === 'sidecar' ? hadStarted : run.at === 'ended' && last?.exitCode === 0;
}

export function isInitialized(state: PodState): boolean {
  return state.containers.every((container) => container.plan.kind === 'main' || isPassed(container));
}

/** Stops main and init containers first, then sidecars one by one in reverse order, all before `killAtMs`. */
function windDown(state: PodState, ending: Ending, nowMs: number): Decision {
  const live = state.containers.filter(({ run }) => run.at !== 'ended');
  if (live.length === 0) return { actions: [{ kind: 'finish' }] };
  const isLate = nowMs >= ending.killAtMs;
  const sidecars = live.filter(({ plan }) => plan.kind === 'sidecar');
  const others = live.filter(({ plan }) => plan.kind !== 'sidecar');
  const turn = isLate ? live : others.length > 0 ? others : sidecars.slice(-1);
  const aborts = live.flatMap(({ plan, run }) =>
    run.at === 'starting' ? [{ kind: 'abortStart', name: plan.name } as const] : [],
  );
  const actions = turn.flatMap(({ plan, run }): Action[] => {
    if (run.at === 'running' && !isLate) {
      const least = plan.kind === 'sidecar' ? leastGraceMs : 0;
      return [{ kind: 'stop', name: plan.name, why: ending.reason, graceMs: Math.max(least, ending.killAtMs - nowMs) }];
    }
    if (isLate && (run.at === 'running' || (run.at === 'stopping' && !run.isKilled))) {
      return [{ kind: 'kill', name: plan.name }];
    }
    return [];
  });
  return isLate
    ? { actions: [...aborts, ...actions] }
    : { actions: [...aborts, ...actions], wakeAtMs: ending.killAtMs };
}

/** Returns Kubernetes' phase. `isFinished` is true when the sandbox is gone. */
export function phaseOf(state: PodState, isFinished: boolean): PodPhase {
  if (isFinished) return finishOf(state).exitCode === 0 ? 'Succeeded' : 'Failed';
  const hasRun = state.containers.some(({ plan, hadStarted, last }) => {
    return plan.kind === 'main' && (hadStarted || last !== undefined);
  });
  const runs = state.containers.some(({ plan, run }) => plan.kind === 'main' && run.at === 'running');
  return hasRun || runs ? 'Running' : 'Pending';
}

/** Returns the result of a pod after its end. The first failing container decides; sidecars do not count. */
export function finishOf(state: PodState): PodFinish {
  const { ending } = state;
  const message = ending?.message === undefined ? {} : { message: ending.message };
  if (ending?.exitCode !== undefined) return { exitCode: ending.exitCode, reason: ending.reason, ...message };
  const counted = state.containers.filter(({ plan }) => plan.kind !== 'sidecar');
  const failed = counted
    .flatMap(({ last }) => (last === undefined || last.exitCode === 0 ? [] : [last]))
    .sort((a, b) => a.finishedAtMs - b.finishedAtMs)[0];
  if (failed !== undefined) {
    return {
      exitCode: failed.exitCode,
      reason: ending?.reason === 'Completed' ? failed.reason : (ending?.reason ?? failed.reason),
      ...message,
    };
  }
  const haveAllEnded = counted.every(({ last }) => last !== undefined);
  // Ended from outside before its containers did: 143, as a shell reports a SIGTERM.
  return haveAllEnded
    ? { exitCode: 0, reason: ending?.reason ?? 'Completed', ...message }
    : { exitCode: 143, reason: ending?.reason ?? 'Error', ...message };
}
