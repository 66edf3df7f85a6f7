import type { GuestText } from '#base/guest-text.ts';
import type { ContainerKind } from './pods.ts';

/**
 * What is known of a running pod, as plain values. `applyEvent` is the only way it changes, `decide` (decide.ts) says
 * what follows from it; neither touches the world.
 *
 *   waiting -> starting -> running -> stopping -+
 *      ^ |         |          |                 |
 *      | |         +----------+-----------------+-> ended
 *      +-|------------------------------------------+
 *        +-> ended (the pod ends)
 */
export const runMoves = {
  waiting: ['starting', 'ended'],
  starting: ['running', 'waiting', 'ended'],
  running: ['stopping', 'waiting', 'ended'],
  stopping: ['waiting', 'ended'],
  ended: [],
} as const satisfies Record<Run['at'], readonly Run['at'][]>;

export interface ContainerPlan {
  readonly name: string;
  readonly kind: ContainerKind;
  /** The pod's policy as it holds for this container: an init container is OnFailure or Never, a sidecar Always. */
  readonly restart: 'Always' | 'OnFailure' | 'Never';
  /** Ready only when its readiness probe says so; otherwise as soon as it has started. */
  readonly hasReadinessProbe: boolean;
}

export interface PodPlan {
  /** Init containers and sidecars in their order, then main containers. */
  readonly containers: readonly ContainerPlan[];
  /** terminationGracePeriodSeconds in `ms`. */
  readonly graceMs: number;
  readonly activeDeadlineMs?: number;
}

export type Run =
  | { readonly at: 'waiting'; readonly notBeforeMs: number; readonly reason: string; readonly message?: string }
  | { readonly at: 'starting' }
  | { readonly at: 'running'; readonly stopWish?: StopWish }
  | { readonly at: 'stopping'; readonly why: string; readonly isKilled: boolean }
  /** It will not run again. */
  | { readonly at: 'ended' };

export interface StopWish {
  /** `liveness`, `startup` or `postStart`. */
  readonly why: string;
  readonly graceMs: number;
}

export interface Exit {
  readonly exitCode: number;
  readonly signal?: number;
  readonly reason: string;
  readonly message?: GuestText;
  readonly startedAtMs?: number;
  readonly finishedAtMs: number;
}

export interface ContainerRun {
  readonly plan: ContainerPlan;
  readonly run: Run;
  /** Of the current run, or of the next one while it waits; also its restart count. */
  readonly attempt: number;
  readonly startedAtMs?: number;
  /** Startup probe and postStart hook of this run are done. */
  readonly isStarted: boolean;
  readonly isReady: boolean;
  /** It had started in this or an earlier run. */
  readonly hadStarted: boolean;
  /** Delay before the next restart, in `ms`. */
  readonly backOffMs: number;
  /** Delay before the next try to create it, in `ms`. */
  readonly createBackOffMs: number;
  readonly last?: Exit;
}

/** Why and how a pod ends. */
export interface Ending {
  /** `Completed`: what its containers said decides. Anything else names what ended it. */
  readonly reason: string;
  readonly message?: string;
  /** Wins over the containers' exit codes. */
  readonly exitCode?: number;
  /** Whatever still runs then is killed. */
  readonly killAtMs: number;
}

export interface PodState {
  readonly plan: PodPlan;
  readonly startedAtMs: number;
  readonly hasSandbox: boolean;
  readonly containers: readonly ContainerRun[];
  readonly ending?: Ending;
}

export type StateEvent =
  | { readonly kind: 'sandboxReady' }
  | { readonly kind: 'startBegun'; readonly name: string }
  | { readonly kind: 'running'; readonly name: string; readonly nowMs: number }
  | { readonly kind: 'started'; readonly name: string }
  | { readonly kind: 'readiness'; readonly name: string; readonly isReady: boolean }
  | { readonly kind: 'stopWanted'; readonly name: string; readonly wish: StopWish }
  | { readonly kind: 'stopBegun'; readonly name: string; readonly why: string; readonly isKilled: boolean }
  | { readonly kind: 'exited'; readonly name: string; readonly exit: Exit }
  | {
      readonly kind: 'createFailed';
      readonly name: string;
      /** Trying again may help. */
      readonly isTransient: boolean;
      readonly reason: string;
      readonly message: string;
      readonly nowMs: number;
    }
  | { readonly kind: 'end'; readonly ending: Ending };

/** Kubelet's numbers: the first restart comes at once, then 10 s doubling to 300 s; ten good minutes forgive all. */
export const backOff = { firstMs: 10_000, maxMs: 300_000, resetAfterMs: 600_000 } as const;

export function initialState(plan: PodPlan, nowMs: number): PodState {
  return {
    plan,
    startedAtMs: nowMs,
    hasSandbox: false,
    containers: plan.containers.map((container) => ({
      plan: container,
      run: {
        at: 'waiting',
        notBeforeMs: 0,
        reason: container.kind === 'main' ? 'PodInitializing' : 'ContainerCreating',
      },
      attempt: 0,
      isStarted: false,
      isReady: false,
      hadStarted: false,
      backOffMs: 0,
      createBackOffMs: 0,
    })),
  };
}

/** The state after `event`; one that comes too late to mean anything changes nothing. */
export function applyEvent(state: PodState, event: StateEvent): PodState {
  switch (event.kind) {
    case 'sandboxReady':
      return { ...state, hasSandbox: true };
    case 'end':
      return applyEnd(state, event.ending);
    case 'createFailed':
      return applyCreateFailed(state, event);
    default: {
      const containers = state.containers.map((container) =>
        container.plan.name === event.name ? applyToContainer(container, event, state.ending !== undefined) : container,
      );
      return { ...state, containers };
    }
  }
}

function applyEnd(state: PodState, ending: Ending): PodState {
  const before = state.ending;
  // Somebody may shorten the time that is left, never lengthen it; the first reason stays.
  const now = before === undefined ? ending : { ...before, killAtMs: Math.min(before.killAtMs, ending.killAtMs) };
  const containers = state.containers.map((container) =>
    container.run.at === 'waiting' ? { ...container, run: { at: 'ended' } as const } : container,
  );
  return { ...state, ending: now, containers };
}

function applyCreateFailed(state: PodState, event: StateEvent & { kind: 'createFailed' }): PodState {
  const isEnding = state.ending !== undefined;
  const failed = state.containers.find(({ plan }) => plan.name === event.name);
  // After 10 s + 20 s + ... + 300 s, ten minutes in all, it is hopeless.
  const isHopeless = !event.isTransient || (failed?.createBackOffMs ?? 0) >= backOff.maxMs;
  const containers = state.containers.map((container): ContainerRun => {
    if (container !== failed || container.run.at !== 'starting') return container;
    if (isEnding || isHopeless) return { ...container, run: { at: 'ended' } };
    const createBackOffMs = nextDelay(container.createBackOffMs);
    const { reason, message } = event;
    const run = { at: 'waiting', notBeforeMs: event.nowMs + createBackOffMs, reason, message } as const;
    return { ...container, run, createBackOffMs };
  });
  const next = { ...state, containers };
  if (isEnding || !isHopeless) return next;
  const killAtMs = event.nowMs + state.plan.graceMs;
  return applyEnd(next, { reason: event.reason, message: event.message, exitCode: 125, killAtMs });
}

type ContainerEvent = Extract<StateEvent, { readonly name: string }>;

function applyToContainer(container: ContainerRun, event: ContainerEvent, isEnding: boolean): ContainerRun {
  const { run } = container;
  switch (event.kind) {
    case 'startBegun':
      if (run.at !== 'waiting') throw new Error(`${event.name} cannot start: it is ${run.at}`);
      return { ...container, run: { at: 'starting' }, isStarted: false, isReady: false };
    case 'running':
      if (run.at !== 'starting') return container;
      return { ...container, run: { at: 'running' }, startedAtMs: event.nowMs, createBackOffMs: 0 };
    case 'started':
      if (run.at !== 'running') return container;
      return { ...container, isStarted: true, hadStarted: true, isReady: !container.plan.hasReadinessProbe };
    case 'readiness':
      return run.at === 'running' && container.isStarted ? { ...container, isReady: event.isReady } : container;
    case 'stopWanted':
      return run.at === 'running' ? { ...container, run: { at: 'running', stopWish: event.wish } } : container;
    case 'stopBegun':
      if (run.at !== 'running' && run.at !== 'stopping') return container;
      return { ...container, isReady: false, run: { at: 'stopping', why: event.why, isKilled: event.isKilled } };
    case 'exited':
      return applyExit(container, event.exit, isEnding);
    default:
      return container;
  }
}

function applyExit(container: ContainerRun, exit: Exit, isEnding: boolean): ContainerRun {
  const { run, plan } = container;
  if (run.at === 'waiting' || run.at === 'ended') return container;
  const { startedAtMs, ...rest } = container;
  const last = startedAtMs === undefined ? exit : { ...exit, startedAtMs };
  const done: ContainerRun = { ...rest, last, isStarted: false, isReady: false, run: { at: 'ended' } };
  // A container that was stopped for its own good comes back even if it exited with 0 (kubelet's computePodActions).
  const wasUnhealthy = run.at === 'stopping' || (run.at === 'running' && run.stopWish !== undefined);
  const isAgain =
    !isEnding &&
    plan.restart !== 'Never' &&
    (plan.restart === 'Always' || exit.exitCode !== 0 || (wasUnhealthy && plan.kind !== 'init'));
  if (!isAgain) return done;
  const ranForMs = startedAtMs === undefined ? 0 : exit.finishedAtMs - startedAtMs;
  const delayMs = ranForMs >= backOff.resetAfterMs ? 0 : container.backOffMs;
  return {
    ...done,
    attempt: container.attempt + 1,
    backOffMs: nextDelay(delayMs),
    run: { at: 'waiting', notBeforeMs: exit.finishedAtMs + delayMs, reason: 'CrashLoopBackOff' },
  };
}

function nextDelay(delayMs: number): number {
  return Math.min(backOff.maxMs, Math.max(backOff.firstMs, 2 * delayMs));
}
