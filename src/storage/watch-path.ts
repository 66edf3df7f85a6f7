import { watch, type FSWatcher } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface WatchTiming {
  /** Delay from the first event to `onChange`, since a writer causes several; `ms`. */
  readonly settleMs: number;
  /**
   * Interval of checks without an event: the kernel's event queue may have overflowed, or a directory been replaced;
   * `ms`.
   */
  readonly recheckMs: number;
  /** Delay after a failed check; doubled up to `recheckMs`. */
  readonly retryMs: number;
}

export const defaultWatchTiming: WatchTiming = { settleMs: 50, recheckMs: 60_000, retryMs: 1000 };

export interface WatchOptions {
  /** A directory, or a file that is written in place or replaced. */
  readonly path: string;
  /** Called at the start and after possible changes, one call at a time. */
  readonly onChange: (signal: AbortSignal) => Promise<void>;
  /** Called for the first of consecutive failures. Retries continue until the watch is disposed. */
  readonly onTrouble: (error: unknown) => void;
  readonly timing?: WatchTiming;
}

/** Watches until it is disposed, which waits for a pending `onChange`. No event at `path` ends the watch. */
export function watchPath({ path, onChange, onTrouble, timing = defaultWatchTiming }: WatchOptions): AsyncDisposable {
  const stop = new AbortController();
  const { signal } = stop;

  const look = async (): Promise<void> => {
    await using sign = await openSign(path);
    await onChange(signal);
    const over = delay(timing.recheckMs, undefined, { signal, ref: false }).catch(() => {});
    for (;;) {
      const isSign = await Promise.race([sign.next().then(() => true), over.then(() => false)]);
      if (!isSign || signal.aborted) return;
      await delay(timing.settleMs, undefined, { signal, ref: false });
      sign.clear();
      await onChange(signal);
    }
  };
  const run = async (): Promise<void> => {
    let failures = 0;
    while (!signal.aborted) {
      try {
        await look();
        failures = 0;
      } catch (error) {
        if (isStopped(signal)) return;
        if (failures === 0) onTrouble(error);
        const waitMs = Math.min(timing.recheckMs, timing.retryMs * 2 ** Math.min(failures, 16));
        failures += 1;
        await delay(waitMs, undefined, { signal, ref: false }).catch(() => {});
      }
    }
  };
  const running = run();
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

/** Reads the flag in a function, since it may change during a wait. */
const isStopped = (signal: AbortSignal): boolean => signal.aborted;

interface Sign extends AsyncDisposable {
  /** Settles when an event has occurred since `clear`. Rejects when the watch itself fails. */
  next(): Promise<void>;
  clear(): void;
}

/** Opens a watch. A file is watched through its directory, so that its replacement is seen. */
async function openSign(path: string): Promise<Sign> {
  const isDirectory = (await stat(path)).isDirectory();
  let happened = Promise.withResolvers<void>();
  const watcher: FSWatcher = watch(isDirectory ? path : dirname(path), { persistent: false });
  watcher.on('change', (_kind, name) => {
    if (isDirectory || name === null || String(name) === basename(path)) happened.resolve();
  });
  watcher.on('error', (error) => {
    happened.promise.catch(() => {}); // there may be no waiter yet
    happened.reject(error);
  });
  return {
    next: () => happened.promise,
    clear() {
      happened = Promise.withResolvers();
    },
    async [Symbol.asyncDispose]() {
      watcher.close();
    },
  };
}
