import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';

const values = v.array(v.number());

/** Result of one run; `docs/performance.json`. */
export const resultSchema = v.object({
  version: v.literal(1),
  /** RFC 3339. */
  measuredAt: v.string(),
  rounds: v.number(),
  machine: v.object({
    processor: v.string(),
    cores: v.number(),
    memoryMiB: v.number(),
    kernel: v.string(),
    accelerator: v.string(),
    /** Share of the processors' time, 0 to 1, that was taken in the seconds before. */
    busyBefore: v.exactOptional(v.number()),
    /** In older results instead: load average of a minute, before anything was measured. */
    loadBefore: v.exactOptional(v.number()),
  }),
  versions: v.record(v.string(), v.string()),
  /** Pods of the row `density`. */
  density: v.number(),
  rows: v.record(
    v.string(),
    v.object({
      seconds: v.number(),
      /** Why there are no, or not all, values. */
      failure: v.exactOptional(v.string()),
      /** By metric and contestant: one value for each round, in the order of rounds. */
      values: v.record(v.string(), v.record(v.string(), values)),
    }),
  ),
});
export type Result = v.InferOutput<typeof resultSchema>;
export type MeasuredRow = Result['rows'][string];

/** What two runs must have in common for their rows to stand on one page. */
export type Conditions = Pick<Result, 'rounds' | 'density' | 'versions' | 'machine'>;

/** Rows of an earlier run that a later one need not measure again: none if anything differs but the load. */
export function keptRows(before: Result, now: Conditions): Result['rows'] {
  const conditionsOf = ({ rounds, density, versions, machine }: Conditions) => ({
    ...{ rounds, density, versions },
    machine: { ...machine, busyBefore: 0, loadBefore: 0 },
  });
  if (!isDeepStrictEqual(conditionsOf(before), conditionsOf(now))) return {};
  return Object.fromEntries(Object.entries(before.rows).filter(([, { failure }]) => failure === undefined));
}

export interface Spread {
  readonly median: number;
  /** First and third quartile. */
  readonly from: number;
  readonly to: number;
}

/** Undefined for no values. Quartiles are interpolated. */
export function spreadOf(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number): number => {
    const place = (sorted.length - 1) * part;
    const [below = Number.NaN, above = Number.NaN] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
    return below + (above - below) * (place - Math.floor(place));
  };
  return { median: at(0.5), from: at(0.25), to: at(0.75) };
}

/** The ratio of medians, with the quartiles of the ratios of single rounds, which were measured next to each other. */
export function ratioOf(ours: readonly number[], theirs: readonly number[]): Spread | undefined {
  const [our, their] = [spreadOf(ours), spreadOf(theirs)];
  const pairs = spreadOf(ours.slice(0, theirs.length).map((value, round) => value / (theirs[round] ?? Number.NaN)));
  if (our === undefined || their === undefined || pairs === undefined) return undefined;
  return { median: our.median / their.median, from: pairs.from, to: pairs.to };
}
