import { kindOf, PodvmError } from '#base/errors.ts';
import type { Holdings, Until } from '../state/holdings.ts';
import type { PhaseClock } from '../state/phases.ts';

/** One step of a recipe that makes `All`: a row of its table. `Site`: the input of every step. */
export interface Step<All, Site, Result> {
  /** Name in the timeline, such as "agent answered". */
  readonly name: string;
  /** Description of the step, in one line of Markdown for the documentation. */
  readonly what: string;
  /** The results that it uses, made by rows above. */
  readonly needs: readonly (keyof All)[];
  /** Makes the result. Leaves nothing after an error or abort. A step without a promise is not in the timeline. */
  readonly run: (made: All, site: Site, signal: AbortSignal) => Result | Promise<Result>;
  /** Undoes the step; absent when undoing its needs is enough. Idempotent, since it is tried again after a failure. */
  readonly undo?: (result: Result) => PromiseLike<void> | void;
  /** Time at which it is undone; default: when the sandbox has ended. */
  readonly until?: Until;
  /**
   * Settles with the reason when the result has ended by itself, which makes all other steps fail; or with undefined when it
   * no longer can.
   */
  readonly lost?: (result: Result) => Promise<Error | undefined>;
  /** Explains the failure of a later step; `isLost`: because this result was lost. */
  readonly explain?: (error: unknown, result: Result, isLost: boolean) => Promise<unknown>;
}

/** A table of steps, or the part of it that makes `Keys`: one row per result. */
export type Steps<All, Site, Keys extends keyof All = keyof All> = {
  readonly [Key in Keys]: Step<All, Site, All[Key]>;
};

interface Row<All, Site, Needs extends keyof All, Result> extends Omit<Step<All, Site, Result>, 'needs' | 'run'> {
  readonly needs: readonly Needs[];
  readonly run: (made: Pick<All, Needs>, site: Site, signal: AbortSignal) => Result | Promise<Result>;
}

/** Makes the rows of one table: `run` sees only the results that its row needs, with their types. */
export function stepOf<All, Site>() {
  return <Result, const Needs extends keyof All = never>(row: Row<All, Site, Needs, Result>): Step<All, Site, Result> =>
    row;
}

export interface Run<All, Site> {
  readonly site: Site;
  /** Rows that are done already; `holdings` holds their results. */
  readonly done?: Partial<All>;
  readonly phases: PhaseClock;
  /** Receives results as they are made; the caller disposes of it, also after an error. */
  readonly holdings: Holdings;
}

/**
 * Runs the rows that are not done, each as soon as its needs are met. When one fails, aborts the others, waits for them, and
 * throws the first failure: nothing can finish unnoticed afterwards.
 */
export async function runSteps<All extends object, Site>(
  steps: Steps<All, Site>,
  { site, done = {}, phases, holdings }: Run<All, Site>,
  signal: AbortSignal,
): Promise<All> {
  const keys = Object.keys(steps) as (keyof All)[]; // SAFE: the keys of this table
  const made = { ...done } as All; // SAFE: a row only sees its needs, which exist when it runs; at the end all exist
  const isDone = (key: keyof All) => Object.hasOwn(done, key);
  checkOrder(steps, keys, isDone);

  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const lost = new Set<keyof All>();
  const failures: unknown[] = [];
  const fail = (error: unknown) => {
    failures.push(error);
    stop.abort(error);
  };
  const watch = async (key: keyof All) => {
    const error = await steps[key].lost?.(made[key]);
    if (error === undefined) return;
    lost.add(key);
    fail(error);
  };

  const running = new Map<keyof All, Promise<void>>();
  const run = async (key: keyof All): Promise<void> => {
    const { name, needs, run: start, undo, until = 'ended' } = steps[key];
    await Promise.all(needs.flatMap((need) => running.get(need) ?? []));
    both.throwIfAborted();
    const starting = start(made, site, both);
    const result = starting instanceof Promise ? await phases.time(name, starting) : starting;
    if (undo !== undefined) holdings.hold(until, () => undo(result));
    made[key] = result;
    watch(key).catch(fail);
  };
  for (const key of keys) {
    if (isDone(key)) watch(key).catch(fail);
    else running.set(key, run(key));
  }
  await Promise.all([...running.values()].map((each) => each.catch(fail)));
  if (failures.length === 0 && both.aborted) fail(both.reason);
  if (failures.length === 0) return made;

  let [error] = failures;
  // A step knows that it was cancelled, and its caller why.
  if (kindOf(error) === 'cancelled' && signal.aborted && signal.reason instanceof PodvmError) error = signal.reason;
  for (const key of keys) {
    const { explain } = steps[key];
    if (explain === undefined || !Object.hasOwn(made, key)) continue;
    error = await explain(error, made[key], lost.has(key) && !signal.aborted);
  }
  throw error;
}

/** Refuses a step that needs a later one, which could wait forever. */
function checkOrder<All extends object, Site>(
  steps: Steps<All, Site>,
  keys: readonly (keyof All)[],
  isDone: (key: keyof All) => boolean,
): void {
  const above = new Set<keyof All>(keys.filter(isDone));
  for (const key of keys) {
    const missing = isDone(key) ? undefined : steps[key].needs.find((need) => !above.has(need));
    if (missing !== undefined) {
      throw new Error(`The step ${String(key)} needs ${String(missing)}, which no row above it makes`);
    }
    above.add(key);
  }
}
