import { setImmediate } from 'node:timers/promises';
import type { Clock } from '#host/clock.ts';

/** A clock for tests: only `advance` passes time. */
export interface FakeClock extends Clock {
  /** Passes `ms`, timer by timer, with all consequences of each. */
  advance(ms: number): Promise<void>;
  /** Runs everything that needs no time. */
  settle(): Promise<void>;
  readonly pending: number;
  /** Sets the date, as by the host's administrator: no time passes. */
  setDate(ms: number): void;
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await setImmediate();
}

/** Turns of the event loop after which promises and streams of the fakes have settled. */
const turns = 12;

export function createFakeClock(startMs = Date.UTC(2026, 0, 1)): FakeClock {
  let now = startMs;
  let shiftMs = 0;
  const timers = new Set<{ readonly at: number; readonly action: () => void }>();
  return {
    now: () => now + shiftMs,
    monotonicMs: () => now,
    setDate: (ms) => void (shiftMs = ms - now),
    after(ms, action) {
      const timer = { at: now + Math.max(0, ms), action };
      timers.add(timer);
      return () => timers.delete(timer);
    },
    settle,
    get pending() {
      return timers.size;
    },
    async advance(ms) {
      const until = now + ms;
      await settle();
      for (;;) {
        const next = [...timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
        if (next === undefined) break;
        timers.delete(next);
        now = next.at;
        next.action();
        await settle();
      }
      now = until;
    },
  };
}
