/** A clock, which tests can replace. */
export interface Clock {
  /** Date in milliseconds since 1970. It jumps when the host's clock is set, so it must not measure durations. */
  now(): number;
  /** Whole milliseconds since the host's boot, the same in all processes and unaffected by changes of the date. */
  monotonicMs(): number;
  /** Calls `action` once after `ms`, unless the returned function was called before. */
  after(ms: number, action: () => void): () => void;
}

/** Longest delay of setTimeout; a longer one would fire at once. */
const maxDelayMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => Number(process.hrtime.bigint() / 1_000_000n),
  after(ms, action) {
    const timer = setTimeout(action, Math.min(Math.max(0, ms), maxDelayMs));
    return () => clearTimeout(timer);
  },
};

/** Resolves after `ms`. An abort ends the wait early, without an error. */
export function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.after(ms, done);
    signal.addEventListener('abort', done, { once: true });
  });
}

export interface Deadline extends Disposable {
  /** Aborts after the time, or with the source signal. */
  readonly signal: AbortSignal;
}

/**
 * Makes a signal for one bounded call. Unlike AbortSignal.any it leaves nothing on a long-lived `signal`, even if the
 * call leaves listeners: composed signals with listeners live as long as their sources (about 1 KiB each).
 */
export function deadlineAfter(clock: Clock, ms: number, signal: AbortSignal): Deadline {
  const controller = new AbortController();
  const abort = () => controller.abort(signal.reason);
  const cancel = clock.after(ms, () => controller.abort(new DOMException(`not done after ${ms} ms`, 'TimeoutError')));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      cancel();
      signal.removeEventListener('abort', abort);
    },
  };
}
