import { finishOf, isInitialized, phaseOf } from './decide.ts';
import type { ContainerRun, Exit, PodState } from './pod-state.ts';
import type { PodCondition, PodContainerState, PodContainerStatus, PodStatus, TerminatedState } from './pods.ts';

/** Names and addresses of a pod that are not part of its state. */
export interface StatusFacts {
  readonly isFinished: boolean;
  readonly podIPs: readonly string[];
  imageOf(container: string): string;
  imageIdOf(container: string): string;
}

/** Returns Kubernetes' status of a pod in this state. */
export function statusOf(state: PodState, facts: StatusFacts): PodStatus {
  const { ending } = state;
  const finish = facts.isFinished ? finishOf(state) : undefined;
  const reason = finish?.reason ?? ending?.reason;
  const message = finish?.message ?? ending?.message;
  const hasReason = reason !== undefined && reason !== 'Completed';
  return {
    phase: phaseOf(state, facts.isFinished),
    ...(hasReason ? { reason } : {}),
    ...(message === undefined ? {} : { message }),
    isTerminating: ending !== undefined && !facts.isFinished,
    startTime: new Date(state.startedAtMs).toISOString(),
    podIPs: facts.podIPs,
    conditions: conditionsOf(state, facts.isFinished),
    containers: state.containers.map((container) => containerStatus(container, state, facts)),
  };
}

function conditionsOf(state: PodState, isFinished: boolean): PodCondition[] {
  const counted = state.containers.filter(({ plan }) => plan.kind !== 'init');
  const areReady = !isFinished && state.ending === undefined && counted.every(({ isReady }) => isReady);
  return [
    { type: 'PodScheduled', status: 'True' },
    { type: 'PodReadyToStartContainers', status: is(state.hasSandbox && !isFinished) },
    { type: 'Initialized', status: is(isInitialized(state)) },
    { type: 'ContainersReady', status: is(areReady) },
    { type: 'Ready', status: is(areReady) },
  ];
}

function is(value: boolean): 'True' | 'False' {
  return value ? 'True' : 'False';
}

function containerStatus(container: ContainerRun, state: PodState, facts: StatusFacts): PodContainerStatus {
  const { plan, run, last } = container;
  const isDoneInit = plan.kind === 'init' && run.at === 'ended' && last?.exitCode === 0;
  const showsLast = last !== undefined && run.at !== 'ended';
  return {
    name: plan.name,
    kind: plan.kind,
    image: facts.imageOf(plan.name),
    imageID: facts.imageIdOf(plan.name),
    restartCount: container.attempt,
    ready: isDoneInit || (container.isReady && state.ending === undefined),
    started: container.isStarted,
    state: stateOf(container),
    ...(showsLast ? { lastState: terminated(last) } : {}),
  };
}

function stateOf({ run, last, startedAtMs, plan }: ContainerRun): PodContainerState {
  switch (run.at) {
    case 'waiting': {
      const { reason, message } = run;
      return { kind: 'waiting', reason, ...(message === undefined ? {} : { message }) };
    }
    case 'starting':
      return { kind: 'waiting', reason: 'ContainerCreating' };
    case 'running':
    case 'stopping':
      return { kind: 'running', startedAt: new Date(startedAtMs ?? 0).toISOString() };
    default:
      if (last !== undefined) return terminated(last);
      return { kind: 'waiting', reason: plan.kind === 'main' ? 'PodInitializing' : 'ContainerCreating' };
  }
}

function terminated(exit: Exit): TerminatedState {
  return {
    kind: 'terminated',
    exitCode: exit.exitCode,
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
    reason: exit.reason,
    ...(exit.message === undefined ? {} : { message: exit.message }),
    ...(exit.startedAtMs === undefined ? {} : { startedAt: new Date(exit.startedAtMs).toISOString() }),
    finishedAt: new Date(exit.finishedAtMs).toISOString(),
  };
}
