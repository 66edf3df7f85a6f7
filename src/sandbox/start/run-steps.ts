import type { Holdings, Until } from '../holdings.ts';
import type { PhaseClock } from '../phases.ts';

/** One step of a recipe that makes `All`: a row of its table. `Site`: what every step knows. */
export interface Step<All, Site, Result> {
  /** What has happened when it is done: its name in the timeline. */
  readonly name: string;
  /** What it does, in one line of Markdown for the documents. */
  readonly what: string;
  /** The results it works with. Rows that make them stand above. */
  readonly needs: readonly (keyof All)[];
  /** On an error or an abort it leaves nothing. A step that returns no promise takes no time, and is not in the timeline. */
  readonly run: (made: All, site: Site, signal: AbortSignal) => Result | Promise<Result>;
  /** Absent: nothing of it is left once what it needs is undone. Tried again when it fails: idempotent. */
  readonly undo?: (result: Result) => PromiseLike<void> | void;
  /** When it is undone; default: when the sandbox has ended. */
  readonly until?: Until;
  /** Settles with the reason when the result has ended by itself: all other steps fail then. */
  readonly lost?: (result: Result) => Promise<Error>;
  /** What the start fails with when a step fails after this one; `isLost`: because the result was lost. */
  readonly explain?: (error: unknown, result: Result, isLost: boolean) => Promise<unknown>;
}

/** A table of steps, or the part of it that makes `Keys`: one row for each thing that is made. */
export type Steps<All, Site, Keys extends keyof All = keyof All> = {
  readonly [Key in Keys]: Step<All, Site, All[Key]>;
};

interface Row<All, Site, Needs extends keyof All, Result> extends Omit<Step<All, Site, Result>, 'needs' | 'run'> {
  readonly needs: readonly Needs[];
  readonly run: (made: Pick<All, Needs>, site: Site, signal: AbortSignal) => Result | Promise<Result>;
}

/** For the rows of one table: `run` sees the results of what its row needs, with their types, and no others. */
export function stepOf<All, Site>() {
  return <Result, const Needs extends keyof All = never>(row: Row<All, Site, Needs, Result>): Step<All, Site, Result> =>
    row;
}

export interface Run<All, Site> {
  readonly site: Site;
  /** Rows that are done already; their results are held by `holdings`. */
  readonly done?: Partial<All>;
  readonly phases: PhaseClock;
  /** Gets what is made as it is made; the caller's to dispose of, also after an error. */
  readonly holdings: Holdings;
}

/**
 * Runs the rows that are not done, each as soon as what it needs is there. When one fails the others are told to stop and
 * waited for, and the first failure is thrown: nothing that was under way can finish unseen afterwards.
 */
export async function runSteps<All extends object, Site>(
  steps: Steps<All, Site>,
  { site, done = {}, phases, holdings }: Run<All, Site>,
  signal: AbortSignal,
): Promise<All> {
  const keys = Object.keys(steps) as (keyof All)[]; // SAFE: the keys of that very table
  const made = { ...done } as All; // SAFE: a row runs when its needs are there, and sees no more; at the end all are
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
    void watch(key);
  };
  for (const key of keys) {
    if (isDone(key)) void watch(key);
    else running.set(key, run(key));
  }
  await Promise.all([...running.values()].map((each) => each.catch(fail)));
  if (failures.length === 0 && both.aborted) fail(both.reason);
  if (failures.length === 0) return made;

  let [error] = failures;
  for (const key of keys) {
    const { explain } = steps[key];
    if (explain === undefined || !Object.hasOwn(made, key)) continue;
    error = await explain(error, made[key], lost.has(key) && !signal.aborted);
  }
  throw error;
}

/** A step that needed a later one could wait for ever. */
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
