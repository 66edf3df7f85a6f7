import type { Field } from '../field.ts';
import type { Contestant } from '../table.ts';

/** Values of one round by the names of metrics in the table. */
export type Values = Readonly<Record<string, number>>;

/** Measures one contestant once. All processes that it starts have ended when it resolves. */
export type Measure = (name: Contestant) => Promise<Values>;

export interface RowOptions {
  readonly field: Field;
  /** Owns resources that a row keeps between rounds. */
  readonly undo: AsyncDisposableStack;
  /** Pods of the row `density`. */
  readonly density: number;
  readonly signal: AbortSignal;
}

/** Prepares a row for all its rounds. */
export type Row = (options: RowOptions) => Promise<Measure>;

export const sleeping = ['sleep', '100000'] as const;
