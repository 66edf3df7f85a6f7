import { stat, truncate } from 'node:fs/promises';

/** Limit of the log of a jailed program. Normally it writes a few lines; a compromised one could write without end. */
const maxLogBytes = 1024 * 1024;
const lookEveryMs = 5_000;

/**
 * Empties a file when it exceeds the limit. The writer appends and keeps it open, so the size is checked at intervals.
 * Disposing ends the checks.
 */
export function boundLog(path: string, maxBytes = maxLogBytes, everyMs = lookEveryMs): Disposable {
  const look = async () => {
    const { size } = await stat(path);
    if (size > maxBytes) await truncate(path);
  };
  let looking: Promise<void> | undefined; // a second look at the same time could empty what was written after the first
  const timer = setInterval(() => {
    looking ??= look()
      .catch(() => undefined) // removed together with its machine
      .finally(() => (looking = undefined));
  }, everyMs);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
