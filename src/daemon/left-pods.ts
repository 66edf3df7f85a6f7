import { isServed } from '#host/is-served.ts';
import { silentLog } from '#host/log.ts';
import type { Configuration } from './configuration.ts';
import { openEndedPods } from './ended-pods.ts';
import { startBackground } from './start-background.ts';

/**
 * Starts a node if none runs and the previous one has left pods, which the new one takes over. An abort of `signal`
 * ends the wait. Errors: those of `startBackground`.
 */
export async function serveLeftPods(
  config: Configuration,
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  if (!config.startsNode || (await isServed(config.socketPath))) return;
  const { length } = (await openEndedPods(config, silentLog)).unfinished(); // empty if this user may not read them
  if (length > 0) await startBackground(config, write, signal);
}
