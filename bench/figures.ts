/** One measured quantity over all rounds. */
export interface Figure {
  readonly min: number;
  readonly median: number;
  readonly p99: number;
  readonly max: number;
  readonly rounds: number;
}

/** Values by their names in the result: `podvm.startMs`, `peers.runsc.firstOutputMs`. */
export type Figures = Readonly<Record<string, Figure>>;

/** Ratios have more places than milliseconds. */
function rounded(value: number): number {
  const places = Math.abs(value) < 10 ? 1000 : 10;
  return Math.round(value * places) / places;
}

/** The median, of an even number the middle between two; of none NaN. */
export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle)] ?? Number.NaN)) / 2;
}

/** Throws if there are no values, which is a bug of the caller. */
export function figureOf(values: readonly number[]): Figure {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (index: number): number => {
    const value = sorted[index];
    if (value === undefined) throw new Error('a figure needs at least one value');
    return rounded(value);
  };
  const middle = (sorted.length - 1) / 2;
  const median = rounded((at(Math.floor(middle)) + at(Math.ceil(middle))) / 2);
  const p99 = at(Math.min(sorted.length - 1, Math.ceil(sorted.length * 0.99) - 1));
  return { min: at(0), median, p99, max: at(sorted.length - 1), rounds: sorted.length };
}

/** `{ 'podvm.startMs': f }` as `{ podvm: { startMs: f } }`. */
export function nested(figures: Figures): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const [name, figure] of Object.entries(figures)) {
    const path = name.split('.');
    const last = path.pop() ?? name;
    let at = root;
    for (const key of path) at = (at[key] ??= {}) as Record<string, unknown>; // SAFE: no name is another's prefix
    at[last] = figure;
  }
  return root;
}

/** Collects values under names. */
export class Sheet {
  readonly #values = new Map<string, number[]>();

  add(name: string, value: number): void {
    const values = this.#values.get(name);
    if (values === undefined) this.#values.set(name, [value]);
    else values.push(value);
  }

  get figures(): Figures {
    return Object.fromEntries([...this.#values].map(([name, values]) => [name, figureOf(values)]));
  }
}
