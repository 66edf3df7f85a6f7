import { type MeasuredRow, ratioOf, type Result, type Spread, spreadOf } from './result.ts';
import { contestants, type RowName, rowNames, type RowText, table, type Target } from './table.ts';

/** One target, compared with the measured value. */
export interface Verdict {
  readonly row: RowName;
  readonly what: string;
  readonly who: string;
  readonly measured: string;
  readonly target: string;
  /** Undefined for a figure that its row did not measure. */
  readonly isMet?: boolean;
  /** Measured ratio and its bound, for a target that is a ratio to a peer's figure or another of ours. */
  readonly ratio?: { readonly spread: Spread; readonly bound: number };
}

/** All targets of the rows of a run, in the order of the table. */
export function judge(result: Result): readonly Verdict[] {
  return rowNames.flatMap((row) => {
    const { title, metrics }: RowText = table[row];
    const values = result.rows[row]?.values;
    if (values === undefined) return [];
    return Object.entries(metrics).flatMap(([key, metric]) =>
      (metric.targets ?? []).map((target) => ({
        ...judgeOne(values, key, metrics, target),
        row,
        what: `${title}: ${metric.text}`,
      })),
    );
  });
}

type Values = MeasuredRow['values'];

function judgeOne(values: Values, key: string, metrics: RowText['metrics'], target: Target) {
  const { of, than, thanFigure, atMost, atLeast } = target;
  const isRatio = than !== undefined || thanFigure !== undefined;
  const ours = values[key]?.[of] ?? [];
  const spread = isRatio ? ratioOf(ours, values[thanFigure ?? key]?.[than ?? of] ?? []) : spreadOf(ours);
  const bound = atMost ?? atLeast ?? Number.NaN;
  const sign = atMost === undefined ? '≥' : '≤';
  const unit = isRatio ? '×' : metrics[key]?.unit;
  const others = [than && contestants[than], thanFigure && metrics[thanFigure]?.text].filter(Boolean).join(': ');
  const promise = { who: contestants[of], target: `${sign} ${bound} ${unit} ${others}`.trimEnd() };
  if (spread === undefined) return { ...promise, measured: '–' };
  return {
    ...promise,
    measured: `${shownSpread(spread)} ${unit}`,
    isMet: atMost === undefined ? spread.median >= bound : spread.median <= bound,
    ...(isRatio ? { ratio: { spread, bound } } : {}),
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
