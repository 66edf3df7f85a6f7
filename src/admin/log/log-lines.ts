import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { LogRecord } from '#sandbox/log/log-format.ts';

/** Which lines of a log are wanted, and how. */
export interface LineQuery {
  /** Begins each line with its time. */
  readonly hasTimes: boolean;
  /** In `ms` since 1970; undefined: from the beginning. */
  readonly sinceMs: number | undefined;
  readonly untilMs: number | undefined;
}

/** Reads the query of a call. Errors: `invalid`. */
export const lineQueryOf = (query: URLSearchParams): LineQuery => ({
  hasTimes: query.get('timestamps') === 'true',
  sinceMs: timeOf(query, 'since'),
  untilMs: timeOf(query, 'until'),
});

function timeOf(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null) return undefined;
  const ms = Date.parse(value);
  if (!Number.isNaN(ms)) return ms;
  throw new PodvmError('invalid', `Cannot read logs: ${name} must be a time, got ${printable(value, 80)}`, {
    fix: 'Give a time such as 2026-01-31T12:00:00Z.',
  });
}

/** Yields the output of the wanted records. */
export async function* linesOf(
  records: AsyncIterable<LogRecord>,
  { hasTimes, sinceMs, untilMs }: LineQuery,
): AsyncGenerator<Uint8Array> {
  const isWithinLine = { stdout: false, stderr: false };
  for await (const { time, stream, endsLine, bytes } of records) {
    const beginsLine = !isWithinLine[stream];
    isWithinLine[stream] = !endsLine;
    if (sinceMs !== undefined && Date.parse(time) < sinceMs) continue;
    if (untilMs !== undefined && Date.parse(time) > untilMs) return;
    if (hasTimes && beginsLine) yield Buffer.from(`${time} `);
    yield bytes;
  }
}
