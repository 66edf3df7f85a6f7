import type { MetricFigures } from '#sandbox/sandbox-stats.ts';
import type { KnownContainer } from '../known-pods.ts';
import { MetricType } from '../schema/api_pb.ts';

/** Measurements of one container, or of a pod as a whole. */
export interface Subject {
  readonly figures: MetricFigures;
  readonly nowMs: number;
  readonly startedAt: Date | undefined;
  readonly resources: KnownContainer['resources'];
  /** Packets of the whole pod that the host has dropped, by the reason. */
  readonly dropped?: ReadonlyMap<string, number>;
}

/** One value of a metric with its label values, in the order of the row's labels. */
export interface Sample {
  readonly labels: readonly string[];
  readonly value: number | bigint;
}

export type Unit = 'count' | 'bytes' | 'seconds' | 'secondsSince1970' | 'microseconds';

/** A metric. Its values are integers, as CRI requires. */
export interface MetricRow {
  readonly type: MetricType;
  readonly unit: Unit;
  /** Noun phrase without the unit. */
  readonly about: string;
  /** Labels besides those of every metric. */
  readonly labels: readonly string[];
  /** Returns the values; empty if the metric does not apply to the subject. */
  readonly of: (subject: Subject) => readonly Sample[];
}

type Value = number | bigint | undefined;

const one = (of: (subject: Subject) => Value) => (subject: Subject) => {
  const value = of(subject);
  return value === undefined ? [] : [{ labels: [], value }];
};

export const counter = (unit: Unit, about: string, of: (subject: Subject) => Value): MetricRow => ({
  type: MetricType.COUNTER,
  unit,
  about,
  labels: [],
  of: one(of),
});

export const gauge = (unit: Unit, about: string, of: (subject: Subject) => Value): MetricRow => ({
  type: MetricType.GAUGE,
  unit,
  about,
  labels: [],
  of: one(of),
});

/** Makes a metric with additional labels. */
export const each = (
  type: keyof typeof MetricType,
  labels: readonly string[],
  unit: Unit,
  about: string,
  of: (subject: Subject) => readonly Sample[],
): MetricRow => ({ type: MetricType[type], unit, about, labels, of });

export const secondsOfUsec = (usec: number): number => Math.floor(usec / 1_000_000);
export const secondsOfMs = (ms: number): number => Math.floor(ms / 1000);
