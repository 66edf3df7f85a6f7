import { Cron } from 'croner';

/** When a CronJob is due: five fields as cron has them, or `@daily` and the like, in a time zone. */
export interface Schedule {
  readonly schedule: string;
  /** Default: the node's. */
  readonly timeZone?: string | undefined;
}

const named = /^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/;
/** Kubernetes takes neither seconds and years nor the library's own additions. */
const fiveFields = /^[\d*,/\-?]+\s+[\d*,/\-?]+\s+[\d*,/\-?]+\s+[\da-z*,/\-?]+\s+[\da-z*,/\-?]+$/i;
const maxChars = 500;

/** What is wrong with a schedule; undefined if nothing is. */
export function whyNotSchedule({ schedule, timeZone }: Schedule): string | undefined {
  const text = schedule.trim();
  if (timeZone !== undefined && !isTimeZone(timeZone)) return 'must be a time zone such as Europe/Berlin';
  if (text.length > maxChars || !(named.test(text) || fiveFields.test(text)))
    return 'must have five fields such as "30 4 * * 1-5", or be @hourly, @daily, @weekly, @monthly or @yearly';
  try {
    return cronOf({ schedule, timeZone }).nextRun(new Date(0)) === null ? 'is never due' : undefined;
  } catch {
    return 'must have five fields such as "30 4 * * 1-5": minute, hour, day of the month, month, day of the week';
  }
}

function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== '' && !/^[+-]/.test(name);
  } catch {
    return false;
  }
}

/** First time after another at which it is due, in `ms` since 1970. */
export function nextDue(schedule: Schedule, afterMs: number): number {
  return cronOf(schedule).nextRun(new Date(afterMs))?.getTime() ?? Infinity;
}

/** The newest time after one and not after another at which it was due, if it was. */
export function lastDue(schedule: Schedule, afterMs: number, untilMs: number): number | undefined {
  const [newest] = cronOf(schedule).previousRuns(1, new Date(untilMs + 1));
  const dueMs = newest?.getTime();
  return dueMs !== undefined && dueMs > afterMs ? dueMs : undefined;
}

const cronOf = ({ schedule, timeZone }: Schedule): Cron =>
  new Cron(schedule.trim(), { paused: true, ...(timeZone === undefined ? {} : { timezone: timeZone }) });
