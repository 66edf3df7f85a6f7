import { stat, truncate } from 'node:fs/promises';

/** QEMU says a few lines, if any; what a VMM that fell may say is bounded by time and this. */
export const maxVmmLogBytes = 1024 * 1024;
const lookEveryMs = 5_000;

/**
 * Empties a file whose writer appends to it and has outgrown the limit: looked at now and then, as its writer has it open
 * and is asked nothing. Disposing ends that.
 */
export function boundLog(path: string, maxBytes = maxVmmLogBytes, everyMs = lookEveryMs): Disposable {
  const look = async () => {
    const { size } = await stat(path);
    if (size > maxBytes) await truncate(path);
  };
  const timer = setInterval(() => void look().catch(() => undefined), everyMs); // it went with its machine
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
