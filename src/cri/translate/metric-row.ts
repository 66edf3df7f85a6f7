import type { MetricFigures } from '#sandbox/sandbox.ts';
import type { KnownContainer } from '../known-pods.ts';
import { MetricType } from '../schema/api_pb.ts';

/** What is known of one container, or of a pod as a whole. */
export interface Subject {
  readonly figures: MetricFigures;
  readonly nowMs: number;
  readonly startedAt: Date | undefined;
  readonly resources: KnownContainer['resources'];
  /** Of a pod as a whole: what the host has dropped of what it sent, by the reason. */
  readonly dropped?: ReadonlyMap<string, number>;
}

/** One of several values of a metric, and what tells it from the others: in the order of the row's labels. */
export interface Sample {
  readonly labels: readonly string[];
  readonly value: number | bigint;
}

export type Unit = 'count' | 'bytes' | 'seconds' | 'secondsSince1970' | 'microseconds';

/** A metric: its values are whole units, as CRI has no others. */
export interface MetricRow {
  readonly type: MetricType;
  readonly unit: Unit;
  /** Noun phrase without the unit. */
  readonly about: string;
  /** Those that it has besides every metric's. */
  readonly labels: readonly string[];
  /** None: it is not of this subject. */
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

/** A metric with labels of its own. */
export const each = (
  type: keyof typeof MetricType,
  labels: readonly string[],
  unit: Unit,
  about: string,
  of: (subject: Subject) => readonly Sample[],
): MetricRow => ({ type: MetricType[type], unit, about, labels, of });

export const secondsOfUsec = (usec: number): number => Math.floor(usec / 1_000_000);
export const secondsOfMs = (ms: number): number => Math.floor(ms / 1000);
