import { medianOf } from '../figures.ts';

/** Values of one figure, base and checkout in pairs: one of each per round. */
export interface Pairs {
  readonly base: readonly number[];
  readonly checkout: readonly number[];
}

/** Growth of a figure that counts as a regression. */
export const mostRatio = 1.15;
/** Growth above which a figure is measured again: on a busy machine, eight rounds are right to some 10 %. */
export const doubtfulRatio = 1.075;

/**
 * The checkout's value as a multiple of the base's, by two estimates, of which the lower counts. Other programs of a busy
 * machine only add to a value. The median of the rounds, each of which compares what ran side by side, is safe from load
 * that rises or falls; the ratio of the lower quartiles is safe from moments that one of the two met by chance.
 */
export function ratioOf({ base, checkout }: Pairs): number {
  const ofRounds = medianOf(checkout.map((value, round) => value / (base[round] ?? Number.NaN)));
  return Math.min(ofRounds, lowerQuartileOf(checkout) / lowerQuartileOf(base));
}

/** Interpolated; of no values NaN. */
function lowerQuartileOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) / 4;
  const [low = Number.NaN, high = Number.NaN] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]];
  return low + (high - low) * (at - Math.floor(at));
}

/** Names of the figures that have grown more than allowed. A ratio that cannot be computed has, too. */
export const grownOf = <Name extends string>(
  figures: Readonly<Record<Name, Pairs>>,
  allowed: number,
): readonly Name[] => (Object.keys(figures) as Name[]).filter((name) => !(ratioOf(figures[name]) <= allowed)); // SAFE: its keys
