import { setTimeout as delay } from 'node:timers/promises';

export interface Growth {
  /** Interval of the checks, in `ms`. */
  readonly intervalMs: number;
  readonly measure: (signal: AbortSignal) => Promise<number>;
  /** Called with each new size, in bytes. */
  readonly grown: (sizeBytes: number, signal: AbortSignal) => Promise<void>;
  /** Called once per failure; the next check tries again. */
  readonly failed: (error: unknown) => void;
}

/** Checks repeatedly whether a file or device has grown, since neither reports it. Disposing awaits the last check. */
export function followGrowth(sizeBytes: number, growth: Growth): AsyncDisposable {
  const stop = new AbortController();
  const done = follow(sizeBytes, growth, stop.signal);
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await done;
    },
  };
}

async function follow(sizeBytes: number, growth: Growth, signal: AbortSignal): Promise<void> {
  let known = sizeBytes;
  let hasFailed = false;
  while (await elapsed(growth.intervalMs, signal)) {
    try {
      const now = await growth.measure(signal);
      if (now <= known) continue;
      await growth.grown(now, signal);
      known = now;
      hasFailed = false;
    } catch (error) {
      if (signal.aborted) return;
      if (!hasFailed) growth.failed(error);
      hasFailed = true;
    }
  }
}

/** Returns false when it was aborted. */
async function elapsed(ms: number, signal: AbortSignal): Promise<boolean> {
  return await delay(ms, true, { signal, ref: false }).catch(() => false);
}
