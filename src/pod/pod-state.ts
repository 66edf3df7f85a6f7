import type { GuestText } from '#base/guest-text.ts';
import type { ContainerKind } from './pods.ts';
import type { Pod } from './schema/objects.ts';

/**
 * The state of a running pod, as plain values. Only `applyEvent` changes it; `decide` (decide.ts) returns the next
 * actions. Both are pure.
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
  /** Restart policy of this container: OnFailure or Never for an init container, Always for a sidecar. */
  readonly restart: 'Always' | 'OnFailure' | 'Never';
  /** Whether its readiness probe decides readiness; otherwise it is ready as soon as it has started. */
  readonly hasReadinessProbe: boolean;
}

export interface PodPlan {
  /** Init containers and sidecars in order, then main containers. */
  readonly containers: readonly ContainerPlan[];
  /** terminationGracePeriodSeconds in `ms`. */
  readonly graceMs: number;
  readonly activeDeadlineMs?: number;
  /** A client waits for its start, and is told soon that it fails. */
  readonly isAwaited?: boolean;
}

export type Run =
  | { readonly at: 'waiting'; readonly notBeforeMs: number; readonly reason: string; readonly message?: string }
  | { readonly at: 'starting' }
  | { readonly at: 'running'; readonly stopWish?: StopWish }
  | { readonly at: 'stopping'; readonly why: string; readonly isKilled: boolean }
  /** The container will not run again. */
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
  /** Number of the current run, or of the next one while it waits; also the restart count. */
  readonly attempt: number;
  /** Date of its start. */
  readonly startedAtMs?: number;
  /** Time at which it ran first, by the monotonic clock. */
  readonly runsSinceMs?: number;
  /** Startup probe and postStart hook of this run have succeeded. */
  readonly isStarted: boolean;
  readonly isReady: boolean;
  /** The container has started in this or an earlier run. */
  readonly hadStarted: boolean;
  /** Delay before the next restart, in `ms`. */
  readonly backOffMs: number;
  /** Delay before the next attempt to create it, in `ms`. */
  readonly createBackOffMs: number;
  readonly last?: Exit;
}

/** Reason and deadline of a pod's end. */
export interface Ending {
  /** `Completed`: the containers' results decide. Other values name the cause. */
  readonly reason: string;
  readonly message?: string;
  /** Overrides the containers' exit codes. */
  readonly exitCode?: number;
  /** Time at which containers that still run are killed. */
  readonly killAtMs: number;
}

export interface PodState {
  readonly plan: PodPlan;
  /** Date of the pod's start. */
  readonly startedAtMs: number;
  /** The same moment as `nowMs` of events and of `decide`. */
  readonly beganMs: number;
  readonly hasSandbox: boolean;
  readonly containers: readonly ContainerRun[];
  readonly ending?: Ending;
}

/** `nowMs`, like all times that are waited for, is of a monotonic clock, not of the host's date. */
export type StateEvent =
  | { readonly kind: 'sandboxReady' }
  | { readonly kind: 'startBegun'; readonly name: string }
  | { readonly kind: 'running'; readonly name: string; readonly startedAtMs: number; readonly nowMs: number }
  | { readonly kind: 'started'; readonly name: string }
  | { readonly kind: 'readiness'; readonly name: string; readonly isReady: boolean }
  | { readonly kind: 'stopWanted'; readonly name: string; readonly wish: StopWish }
  | { readonly kind: 'stopBegun'; readonly name: string; readonly why: string; readonly isKilled: boolean }
  | { readonly kind: 'exited'; readonly name: string; readonly exit: Exit; readonly nowMs: number }
  | {
      readonly kind: 'createFailed';
      readonly name: string;
      /** A retry may succeed. */
      readonly isTransient: boolean;
      /** Another pod has what it needs, for as long as that takes. */
      readonly isTaken?: boolean;
      readonly reason: string;
      readonly message: string;
      readonly nowMs: number;
    }
  | { readonly kind: 'end'; readonly ending: Ending };

/**
 * Kubelet's values: the first restart is immediate, then after 10 s, doubling to 300 s; ten minutes without a failure
 * reset it.
 */
export const backOff = { firstMs: 10_000, maxMs: 300_000, resetAfterMs: 600_000 } as const;
/** Longest delay before a retry while a client waits, in `ms`: three tries within half a minute and what each takes. */
const awaitedMaxMs = 20_000;

export function initialState(plan: PodPlan, startedAtMs: number, nowMs: number): PodState {
  return {
    plan,
    startedAtMs,
    beganMs: nowMs,
    hasSandbox: false,
    containers: plan.containers.map((container) => ({
      plan: container,
      run: {
        at: 'waiting',
        notBeforeMs: nowMs,
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

/** Returns the state after `event`. Late events change nothing. */
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
  // A second request may shorten the remaining time, never lengthen it. The first reason stays.
  const now = before === undefined ? ending : { ...before, killAtMs: Math.min(before.killAtMs, ending.killAtMs) };
  const containers = state.containers.map((container) =>
    container.run.at === 'waiting' ? { ...container, run: { at: 'ended' } as const } : container,
  );
  return { ...state, ending: now, containers };
}

function applyCreateFailed(state: PodState, event: StateEvent & { kind: 'createFailed' }): PodState {
  const isEnding = state.ending !== undefined;
  const failed = state.containers.find(({ plan }) => plan.name === event.name);
  const isAwaited = state.plan.isAwaited === true && failed?.attempt === 0 && event.isTaken !== true;
  // Gives up after 10 s + 20 s + ... + 300 s, ten minutes in total.
  const longestMs = isAwaited ? awaitedMaxMs : backOff.maxMs;
  const isHopeless = !event.isTransient || (failed?.createBackOffMs ?? 0) >= longestMs;
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
      return {
        ...container,
        run: { at: 'running' },
        startedAtMs: event.startedAtMs,
        runsSinceMs: event.nowMs,
        createBackOffMs: 0,
      };
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
      return applyExit(container, event.exit, isEnding, event.nowMs);
    default:
      return container;
  }
}

function applyExit(container: ContainerRun, exit: Exit, isEnding: boolean, nowMs: number): ContainerRun {
  const { run, plan } = container;
  if (run.at === 'waiting' || run.at === 'ended') return container;
  const { startedAtMs, runsSinceMs = nowMs, ...rest } = container;
  const last = startedAtMs === undefined ? exit : { ...exit, startedAtMs };
  const done: ContainerRun = { ...rest, last, isStarted: false, isReady: false, run: { at: 'ended' } };
  // A container stopped for its health restarts even if it exited with 0 (kubelet's computePodActions).
  const wasUnhealthy = run.at === 'stopping' || (run.at === 'running' && run.stopWish !== undefined);
  const isAgain =
    !isEnding &&
    plan.restart !== 'Never' &&
    (plan.restart === 'Always' || exit.exitCode !== 0 || (wasUnhealthy && plan.kind !== 'init'));
  if (!isAgain) return done;
  const delayMs = nowMs - runsSinceMs >= backOff.resetAfterMs ? 0 : container.backOffMs;
  return {
    ...done,
    attempt: container.attempt + 1,
    backOffMs: nextDelay(delayMs),
    run: { at: 'waiting', notBeforeMs: nowMs + delayMs, reason: 'CrashLoopBackOff' },
  };
}

function nextDelay(delayMs: number): number {
  return Math.min(backOff.maxMs, Math.max(backOff.firstMs, 2 * delayMs));
}

/** What is decided of a pod by its manifest. */
export function planOf(pod: Pod, awaited?: 'end' | 'start'): PodPlan {
  const { spec } = pod;
  const init = spec.initContainers.map((container): ContainerPlan => {
    const isSidecar = container.restartPolicy === 'Always';
    const restart = isSidecar ? 'Always' : spec.restartPolicy === 'Never' ? 'Never' : 'OnFailure';
    const hasReadinessProbe = container.readinessProbe !== undefined;
    return { name: container.name, kind: isSidecar ? 'sidecar' : 'init', restart, hasReadinessProbe };
  });
  const main = spec.containers.map((container): ContainerPlan => {
    const hasReadinessProbe = container.readinessProbe !== undefined;
    return { name: container.name, kind: 'main', restart: spec.restartPolicy, hasReadinessProbe };
  });
  const deadline = spec.activeDeadlineSeconds;
  return {
    containers: [...init, ...main],
    graceMs: spec.terminationGracePeriodSeconds * 1000,
    ...(deadline === undefined ? {} : { activeDeadlineMs: deadline * 1000 }),
    // One that is left to the node, and should always run, is tried as by a kubelet.
    ...(awaited === 'end' || (awaited === 'start' && spec.restartPolicy !== 'Always') ? { isAwaited: true } : {}),
  };
}
