import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log.ts';

/** What every session is given, whatever carries it. */
export interface SessionParts {
  readonly clock: Clock;
  readonly log: Log;
  /** A session in which nothing but pings went either way for so long is ended; `ms`. */
  readonly idleMs: number;
  /** So long a client may take to open its streams; `ms`. */
  readonly openMs: number;
  /** Aborts when the server closes: sessions end then. */
  readonly closing: AbortSignal;
}
