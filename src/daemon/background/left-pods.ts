import { silentLog } from '#host/log/log.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { openEndedPods, openJobs } from '../node/ended-pods.ts';

/**
 * Starts a node if the previous one has left pods or Jobs, which the new one takes over, or starts of pods that are due. Call it
 * while no node runs. An abort of `signal` ends the wait. Errors: those of `startBackground`.
 */
export async function serveLeftPods(
  config: Configuration,
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const ended = await openEndedPods(config, silentLog); // empty if this user may not read them
  const isDue = ended.list().some(({ failures }) => failures !== undefined);
  const jobs = await openJobs(config, silentLog);
  const goesOn = jobs.some(({ progress: { outcome } }) => outcome === undefined);
  if (!isDue && !goesOn && ended.unfinished().length === 0) return;
  const { startBackground } = await import('./start-background.ts');
  await startBackground(config, write, signal);
}
