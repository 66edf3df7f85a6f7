import { ratioOf, type Result, type Spread, spreadOf } from './result.ts';
import { contestants, type Metric, type RowName, rowNames, type RowText, table, type Target } from './table.ts';

/** One target, compared with the measured value. */
export interface Verdict {
  readonly row: RowName;
  readonly what: string;
  readonly who: string;
  readonly measured: string;
  readonly target: string;
  readonly isMet: boolean;
  /** Measured ratio and its bound, for a target that is a ratio. */
  readonly ratio?: { readonly spread: Spread; readonly bound: number };
}

/** All targets of which a run has measured the figure, in the order of the table. */
export function judge(result: Result): readonly Verdict[] {
  return rowNames.flatMap((row) => {
    const { title, metrics }: RowText = table[row];
    return Object.entries(metrics).flatMap(([key, metric]) =>
      (metric.targets ?? []).flatMap((target) => {
        const verdict = judgeOne(row, result.rows[row]?.values[key] ?? {}, metric, target);
        return verdict === undefined ? [] : [{ ...verdict, row, what: `${title}: ${metric.text}` }];
      }),
    );
  });
}

type Values = Readonly<Record<string, readonly number[]>>;

function judgeOne(row: RowName, values: Values, { unit }: Metric, { of, than, atMost, atLeast }: Target) {
  const ours = values[of] ?? [];
  const spread = than === undefined ? spreadOf(ours) : ratioOf(ours, values[than] ?? []);
  if (spread === undefined) return undefined;
  const bound = atMost ?? atLeast ?? Number.NaN;
  const isMet = atMost === undefined ? spread.median >= bound : spread.median <= bound;
  const sign = atMost === undefined ? '≥' : '≤';
  const suffix = than === undefined ? ` ${unit}` : ' ×';
  return {
    row,
    who: contestants[of],
    measured: `${shownSpread(spread)}${suffix}`,
    target: `${sign} ${bound}${than === undefined ? suffix : ` × ${contestants[than]}`}`,
    isMet,
    ...(than === undefined ? {} : { ratio: { spread, bound } }),
  };
}

/** Formats a number with three significant digits. */
export function shown(value: number): string {
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** The median, with the quartiles if there is more than one value. */
export function shownSpread({ median, from, to }: Spread): string {
  return from === to ? shown(median) : `${shown(median)} (${shown(from)}-${shown(to)})`;
}
