import { setTimeout as delay } from 'node:timers/promises';

export interface WaitLimit {
  readonly ms?: number;
  readonly signal?: AbortSignal;
}

/**
 * Returns the result of the promise, or undefined if the time ends or `signal` aborts first. The promise continues, and
 * a later rejection is ignored.
 */
export async function within<T>(promise: Promise<T>, { ms, signal }: WaitLimit): Promise<T | undefined> {
  const { promise: over, resolve } = Promise.withResolvers<undefined>();
  const end = () => resolve(undefined);
  const timer = ms === undefined ? undefined : setTimeout(end, ms);
  signal?.addEventListener('abort', end, { once: true });
  if (signal?.aborted === true) end();
  try {
    return await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', end);
  }
}

export interface PollTiming {
  readonly everyMs: number;
  /** Longest pause: each is a fifth longer than the one before, up to this. Default: all pauses are equal. */
  readonly slowestMs?: number;
  readonly signal?: AbortSignal;
}

/** Repeats `look` until it finds something, and returns that; returns undefined once `signal` aborts. */
export async function poll<T>(
  look: () => Promise<T | undefined>,
  { everyMs, slowestMs = everyMs, signal }: PollTiming,
): Promise<T | undefined> {
  for (let pauseMs = everyMs; ; pauseMs = Math.min(pauseMs * 1.2, slowestMs)) {
    const found = await look();
    if (found !== undefined || signal?.aborted === true) return found;
    await rest(pauseMs, signal);
  }
}

export interface RetryTiming {
  readonly everyMs: number;
  /** As in `PollTiming`. */
  readonly slowestMs?: number;
  /** Time after the first attempt in which another one may begin. Default: no limit. */
  readonly forMs?: number;
  /** An abort ends a pause; the attempt after it is the last. */
  readonly signal?: AbortSignal;
}

/** Repeats an attempt while it fails with an error that may pass by itself. Errors: the last attempt's. */
export async function retry<T>(
  attempt: () => Promise<T>,
  isPassing: (error: unknown) => boolean | Promise<boolean>,
  { everyMs, slowestMs = everyMs, forMs = Infinity, signal }: RetryTiming,
): Promise<T> {
  const until = performance.now() + forMs;
  for (let pauseMs = everyMs; ; pauseMs = Math.min(pauseMs * 1.2, slowestMs)) {
    const isLast = signal?.aborted === true;
    try {
      return await attempt();
    } catch (error) {
      if (isLast || performance.now() > until || !(await isPassing(error))) throw error;
    }
    await rest(pauseMs, signal);
  }
}

async function rest(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await delay(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {}); // the caller sees the abort
}
