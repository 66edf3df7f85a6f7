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
  const timer = setInterval(() => void look().catch(() => undefined), everyMs); // removed together with its machine
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
