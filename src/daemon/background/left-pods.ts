import { silentLog } from '#host/log/log.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { openEndedPods } from '../node/ended-pods.ts';

/**
 * Starts a node if the previous one has left pods, which the new one takes over. Call it while no node runs. An abort
 * of `signal` ends the wait. Errors: those of `startBackground`.
 */
export async function serveLeftPods(
  config: Configuration,
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { length } = (await openEndedPods(config, silentLog)).unfinished(); // empty if this user may not read them
  if (length === 0) return;
  const { startBackground } = await import('./start-background.ts');
  await startBackground(config, write, signal);
}
