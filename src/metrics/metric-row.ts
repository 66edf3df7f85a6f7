import type { HistogramReading } from '#base/histogram.ts';
import type { MetricFigures } from '#sandbox/figures/sandbox-stats.ts';

/** Measurements of one container, or of a pod as a whole, by its guest. */
export interface GuestSubject {
  readonly figures: MetricFigures;
  readonly nowMs: number;
  readonly startedAt: Date | undefined;
  /** Limits on processor time as CRI words them, with -1 for no quota. */
  readonly resources: CpuResources | undefined;
  /** Packets of the whole pod that the host has dropped, by the reason. */
  readonly dropped?: ReadonlyMap<string, number>;
}

export interface CpuResources {
  readonly cpuPeriod: number | bigint;
  readonly cpuQuota: number | bigint;
  readonly cpuShares: number | bigint;
}

/** One value of a metric with its label values, in the order of the row's labels. */
export interface Sample<V = Value> {
  readonly labels: readonly string[];
  readonly value: V;
}

export type Value = number | bigint;
export type Unit = 'count' | 'bytes' | 'seconds' | 'secondsSince1970' | 'microseconds' | 'ratio';
export type MetricType = 'counter' | 'gauge' | 'histogram';

/** A metric of a subject. Its values are exact: an output that only has whole numbers rounds them. */
export interface MetricRow<S = GuestSubject, V = Value> {
  readonly type: MetricType;
  readonly unit: Unit;
  /** Noun phrase without the unit. */
  readonly about: string;
  /** Labels besides those of the subject. */
  readonly labels: readonly string[];
  /** Returns the values; empty if the metric does not apply to the subject. */
  readonly of: (subject: S) => readonly Sample<V>[];
}

type Maybe = Value | undefined;

const one =
  <S>(of: (subject: S) => Maybe) =>
  (subject: S) => {
    const value = of(subject);
    return value === undefined ? [] : [{ labels: [], value }];
  };

/** Makes the rows of one kind of subject. */
export function rowsOf<S>() {
  return {
    counter: (unit: Unit, about: string, of: (subject: S) => Maybe): MetricRow<S> => ({
      type: 'counter',
      unit,
      about,
      labels: [],
      of: one(of),
    }),
    gauge: (unit: Unit, about: string, of: (subject: S) => Maybe): MetricRow<S> => ({
      type: 'gauge',
      unit,
      about,
      labels: [],
      of: one(of),
    }),
    /** Makes a metric with additional labels. */
    each: (
      type: 'counter' | 'gauge',
      labels: readonly string[],
      unit: Unit,
      about: string,
      of: (subject: S) => readonly Sample[],
    ): MetricRow<S> => ({ type, unit, about, labels, of }),
    histograms: (
      labels: readonly string[],
      unit: Unit,
      about: string,
      of: (subject: S) => readonly Sample<HistogramReading>[],
    ): MetricRow<S, HistogramReading> => ({ type: 'histogram', unit, about, labels, of }),
  };
}

const inUnit = {
  count: '',
  bytes: ', in bytes',
  seconds: ', in seconds',
  secondsSince1970: ', in seconds since 1970',
  microseconds: ', in microseconds',
  ratio: ', as a ratio',
} as const satisfies Record<Unit, string>;

export const helpOf = ({ about, unit }: Pick<MetricRow, 'about' | 'unit'>): string => `${about}${inUnit[unit]}.`;

export const secondsOfUsec = (usec: number): number => usec / 1_000_000;
export const secondsOfMs = (ms: number): number => ms / 1000;
