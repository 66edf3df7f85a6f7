import { messageOf } from '#base/errors.ts';
import { type Clock, pause } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { UpdateFinding } from '#setup/update-report.ts';

/**
 * Delay of the first check, in `ms`: a daemon that is restarted often asks the archives once, and its first pods have
 * the processor to themselves.
 */
const firstAfterMs = 60_000;
const everyMs = 24 * 60 * 60_000;

export interface WatchUpdatesParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly check: (signal: AbortSignal) => Promise<readonly UpdateFinding[]>;
}

/**
 * Logs parts that are older than in the archives, parts that could not be checked, and a missing security archive: soon
 * after the start and then once a day, until disposed.
 */
export function watchUpdates(parts: WatchUpdatesParts): AsyncDisposable {
  const stop = new AbortController();
  const watching = watch(parts, stop.signal);
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await watching;
    },
  };
}

async function watch({ clock, log, check }: WatchUpdatesParts, signal: AbortSignal): Promise<void> {
  for (let waitMs = firstAfterMs; ; waitMs = everyMs) {
    await pause(clock, waitMs, signal);
    if (signal.aborted) return;
    try {
      tell(await check(signal), log);
    } catch (error) {
      if (!signal.aborted) log.warn('updates could not be checked', { why: messageOf(error) });
    }
  }
}

const events = {
  older: 'older than the archives have',
  missing: 'security updates are not configured',
  unknown: 'updates could not be checked',
} as const;

function tell(findings: readonly UpdateFinding[], log: Log): void {
  for (const { subject, verdict, detail, fix } of findings) {
    if (verdict !== 'newest') log.warn(events[verdict], { of: subject, what: detail, fix });
  }
  const newest = findings.filter(({ verdict }) => verdict === 'newest').map(({ subject }) => subject);
  log.info('updates checked', { newest: newest.join(', ') });
}
