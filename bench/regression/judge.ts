import { medianOf } from '../figures.ts';

/** Values of one figure, base and checkout in pairs: one of each per round. */
export interface Pairs {
  readonly base: readonly number[];
  readonly checkout: readonly number[];
}

/** Growth of a figure that counts as a regression. */
export const mostRatio = 1.15;

/** The checkout's value as a multiple of the base's: the median of the rounds, of which each compares what ran side by side. */
export function ratioOf({ base, checkout }: Pairs): number {
  return medianOf(checkout.map((value, round) => value / (base[round] ?? Number.NaN)));
}

/** Names of the figures that have grown too much. A ratio that cannot be computed has, too. */
export const regressedOf = (figures: Readonly<Record<string, Pairs>>): readonly string[] =>
  Object.entries(figures).flatMap(([name, pairs]) => (ratioOf(pairs) <= mostRatio ? [] : [name]));
