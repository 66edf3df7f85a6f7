import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';

/** Parts of every session, for any transport. */
export interface SessionParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Time without traffic other than pings after which a session is ended; `ms`. */
  readonly idleMs: number;
  /** Time for a client to open its streams; `ms`. */
  readonly openMs: number;
  /** Aborts when the server closes, which ends sessions. */
  readonly closing: AbortSignal;
}
