import { watch, type FSWatcher } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface WatchTiming {
  /** From the first sign of a change to `onChange`: a writer makes several. `ms`. */
  readonly settleMs: number;
  /** Between looks that need no sign: the kernel's queue of events may have run over, a directory been replaced. `ms`. */
  readonly recheckMs: number;
  /** After a look that failed; doubled up to `recheckMs`. */
  readonly retryMs: number;
}

export const defaultWatchTiming: WatchTiming = { settleMs: 50, recheckMs: 60_000, retryMs: 1000 };

export interface WatchOptions {
  /** A directory, or a file that is written in place or replaced. */
  readonly path: string;
  /** Something there may have changed; called at once, too, and never twice at a time. */
  readonly onChange: (signal: AbortSignal) => Promise<void>;
  /** Told of the first failure of a row; it is tried again until the watch is disposed of. */
  readonly onTrouble: (error: unknown) => void;
  readonly timing?: WatchTiming;
}

/** Watches until it is disposed of, which waits for an `onChange` under way. Nothing that happens at `path` ends it. */
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

/** Asked again after a wait, in which it may have changed. */
const isStopped = (signal: AbortSignal): boolean => signal.aborted;

interface Sign extends AsyncDisposable {
  /** Settles when something has happened since `clear`. Rejects when the watch itself fails. */
  next(): Promise<void>;
  clear(): void;
}

/** A file is watched by its directory, so that one that replaces it is seen. */
async function openSign(path: string): Promise<Sign> {
  const isDirectory = (await stat(path)).isDirectory();
  let happened = Promise.withResolvers<void>();
  const watcher: FSWatcher = watch(isDirectory ? path : dirname(path), { persistent: false });
  watcher.on('change', (_kind, name) => {
    if (isDirectory || name === null || String(name) === basename(path)) happened.resolve();
  });
  watcher.on('error', (error) => {
    happened.promise.catch(() => {}); // nobody may be waiting just now
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
