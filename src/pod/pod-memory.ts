import * as v from 'valibot';
import { guestText, rawText } from '#base/guest-text.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import type { ContainerRun, Exit, PodPlan, PodState, Run } from './pod-state.ts';
import { maxEvents, type PodEvent } from './pods.ts';

/** State of a pod that the next process needs to take it over, besides its manifest and its sandbox. */
export interface PodMemory {
  readonly uid: string;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly state: PodState;
  readonly events: readonly PodEvent[];
}

/** A pod of an earlier process. */
export interface PodBefore {
  readonly memory: RecalledMemory;
  readonly sandbox: Sandbox;
}

const number = v.pipe(v.number(), v.finite());
const message = v.exactOptional(v.string());

const runSchema = v.variant('at', [
  v.object({ at: v.literal('waiting'), notBeforeMs: number, reason: v.string(), message }),
  v.object({ at: v.literal('starting') }),
  v.object({
    at: v.literal('running'),
    stopWish: v.exactOptional(v.object({ why: v.string(), graceMs: number })),
  }),
  v.object({ at: v.literal('stopping'), why: v.string(), isKilled: v.boolean() }),
  v.object({ at: v.literal('ended') }),
]);

const exitSchema = v.object({
  exitCode: number,
  signal: v.exactOptional(number),
  reason: v.string(),
  message,
  startedAtMs: v.exactOptional(number),
  finishedAtMs: number,
});

const containerSchema = v.object({
  name: v.string(),
  run: runSchema,
  attempt: number,
  startedAtMs: v.exactOptional(number),
  runsSinceMs: v.exactOptional(number),
  isStarted: v.boolean(),
  isReady: v.boolean(),
  hadStarted: v.boolean(),
  backOffMs: number,
  createBackOffMs: number,
  last: v.exactOptional(exitSchema),
});

const eventSchema = v.object({
  at: v.string(),
  type: v.picklist(['Normal', 'Warning']),
  reason: v.string(),
  message: v.string(),
  fix: v.exactOptional(v.string()),
  count: number,
  container: v.exactOptional(v.string()),
});

export const podMemorySchema = v.object({
  uid: v.string(),
  createdAt: v.string(),
  startedAtMs: number,
  beganMs: number,
  hasSandbox: v.boolean(),
  containers: v.array(containerSchema),
  ending: v.exactOptional(
    v.object({ reason: v.string(), message, exitCode: v.exactOptional(number), killAtMs: number }),
  ),
  events: v.pipe(v.array(eventSchema), v.maxLength(maxEvents)),
});
/** The same as read from disk. */
export type RecalledMemory = v.InferOutput<typeof podMemorySchema>;

/** Converts it for its record. */
export function recordedMemory({ uid, createdAt, state, events }: PodMemory): RecalledMemory {
  const { startedAtMs, beganMs, hasSandbox, containers, ending } = state;
  return {
    ...{ uid, createdAt, startedAtMs, beganMs, hasSandbox },
    containers: containers.map(({ plan, last, ...rest }) => ({
      name: plan.name,
      ...rest,
      ...(last === undefined ? {} : { last: recordedExit(last) }),
    })),
    ...(ending === undefined ? {} : { ending }),
    events: [...events],
  };
}

function recordedExit({ message: text, ...exit }: Exit): v.InferOutput<typeof exitSchema> {
  return { ...exit, ...(text === undefined ? {} : { message: rawText(text) }) };
}

function recalledExit({ message: text, ...exit }: v.InferOutput<typeof exitSchema>): Exit {
  return { ...exit, ...(text === undefined ? {} : { message: guestText(text) }) };
}

/**
 * Returns the state with which a pod continues: that of its record, corrected by the present state of its sandbox. A
 * container whose creation was interrupted is created again; one that was being stopped is stopped again.
 */
export function resumedState(initial: PodState, { memory, sandbox }: PodBefore, nowMs: number): PodState {
  const { startedAtMs, beganMs, ending } = memory;
  return {
    plan: initial.plan,
    ...{ startedAtMs, beganMs },
    hasSandbox: true,
    containers: initial.containers.map((fresh) => {
      const known = memory.containers.find(({ name }) => name === fresh.plan.name);
      if (known === undefined) return fresh;
      const { name: _, last, run, ...rest } = known;
      const isThere = containerOf(sandbox, fresh.plan.name)?.status.attempt === known.attempt;
      return {
        ...rest,
        plan: fresh.plan,
        run: resumedRun(run, { isThere, isEnding: ending !== undefined, graceMs: initial.plan.graceMs, nowMs }),
        ...(last === undefined ? {} : { last: recalledExit(last) }),
      };
    }),
    ...(ending === undefined ? {} : { ending }),
  };
}

function resumedRun(
  run: Run,
  found: {
    readonly isThere: boolean;
    readonly isEnding: boolean;
    readonly graceMs: PodPlan['graceMs'];
    readonly nowMs: number;
  },
): Run {
  if (run.at === 'waiting' || run.at === 'ended') return run;
  if (!found.isThere) {
    return found.isEnding ? { at: 'ended' } : { at: 'waiting', notBeforeMs: found.nowMs, reason: 'ContainerCreating' };
  }
  if (run.at !== 'stopping') return run;
  return found.isEnding ? { at: 'running' } : { at: 'running', stopWish: { why: run.why, graceMs: found.graceMs } };
}

/** Returns the newest container of that name in the sandbox. */
export const containerOf = (sandbox: Sandbox, name: string): Container | undefined =>
  sandbox.containers.findLast(({ status }) => status.name === name);

/** Returns whether the process of a container of that run continues, or has ended unseen. */
export const isUnderWay = ({ run }: ContainerRun): boolean => run.at === 'starting' || run.at === 'running';
