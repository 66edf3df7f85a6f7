/** Time as a part, so that tests can choose it. */
export interface Clock {
  /** Wall-clock milliseconds since 1970. */
  now(): number;
  /** Calls `action` once after `ms`, unless the returned function was called before. */
  after(ms: number, action: () => void): () => void;
}

/** Longest delay that setTimeout keeps; a longer one would fire at once. */
const maxDelayMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, action) {
    const timer = setTimeout(action, Math.min(Math.max(0, ms), maxDelayMs));
    return () => clearTimeout(timer);
  },
};

/** Resolves after `ms`; an abort ends the wait early, without an error. */
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
