import type { Log } from '#host/log/log.ts';
import { isStopped, killProcess, type ProcessIdentity } from '#host/process/process-identity.ts';

export interface StoppedLimits {
  /** Interval of the checks, in `ms`. */
  readonly lookMs: number;
  /** Time after which a server that is still stopped is ended, in `ms`. */
  readonly endMs: number;
}

const stoppedLimits: StoppedLimits = { lookMs: 4_000, endMs: 60_000 };

/**
 * Watches for SIGSTOP, or a debugger, on the file server of this path. Accesses to the volume wait meanwhile, and the
 * processes that wait in the guest cannot be killed. A server that stays stopped is ended, so that its containers can
 * be replaced.
 */
export function watchStopped(
  server: ProcessIdentity,
  path: string,
  log: Log,
  { lookMs, endMs }: StoppedLimits = stoppedLimits,
): Disposable {
  let sinceMs: number | undefined;
  const look = () => {
    const nowMs = performance.now();
    if (!isStopped(server)) {
      if (sinceMs !== undefined) log.info('a file server continues', { path, stoppedMs: Math.round(nowMs - sinceMs) });
      sinceMs = undefined;
      return;
    }
    if (sinceMs === undefined) log.warn('a file server is stopped: its volume is blocked', { path, pid: server.pid });
    sinceMs ??= nowMs;
    const onTrouble = (error: unknown) => log.error('file server not ended', error, { path });
    if (nowMs - sinceMs >= endMs) endIfStopped(server, path, log).catch(onTrouble);
  };
  const timer = setInterval(look, lookMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * Ends a stopped server, so that accesses that wait for it fail and their processes can be killed. Returns whether it
 * ended one.
 */
export async function endIfStopped(server: ProcessIdentity, path: string, log: Log): Promise<boolean> {
  if (!isStopped(server)) return false;
  log.warn('a stopped file server is ended', { path, pid: server.pid });
  try {
    await killProcess(server);
    return true;
  } catch (error) {
    log.error('file server not ended', error, { path });
    return false;
  }
}
