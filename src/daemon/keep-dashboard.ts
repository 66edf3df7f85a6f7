import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { type Clock, pause } from '#host/clock.ts';
import { replaceFile } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';

export interface ServedDashboard extends AsyncDisposable {
  readonly url: string;
}

interface KeepDashboardParts {
  /** The admin socket; the address is written beside it. */
  readonly socketPath: string;
  readonly serve: () => Promise<ServedDashboard>;
  readonly clock: Clock;
  readonly log: Log;
}

const againMs = 10_000;

/** File beside the admin socket with the address of the daemon's dashboard and its token. */
export const dashboardUrlFile = (socketPath: string): string => join(dirname(socketPath), 'dashboard.url');

/**
 * Serves the dashboard until disposed, and writes its address to a file that only root can read. Any user of the host can
 * hold its port, which must not keep pods from starting: without it, the dashboard is tried again every ten seconds.
 */
export async function keepDashboard({ socketPath, serve, clock, log }: KeepDashboardParts): Promise<AsyncDisposable> {
  const file = dashboardUrlFile(socketPath);
  const stop = new AbortController();
  let served: ServedDashboard | undefined;
  const open = async (): Promise<boolean> => {
    await using undo = new AsyncDisposableStack();
    const dashboard = undo.use(await serve());
    await replaceFile(file, `${dashboard.url}\n`);
    undo.move();
    served = dashboard;
    log.info('serving the dashboard', { address: new URL(dashboard.url).host, file });
    return true;
  };
  const openLater = async () => {
    for (;;) {
      await pause(clock, againMs, stop.signal);
      if (stop.signal.aborted || (await open().catch(() => false))) return;
    }
  };
  let opening: Promise<void> = Promise.resolve();
  try {
    await open();
  } catch (error) {
    await rm(file, { force: true }); // of a daemon that was killed: another program may listen there now
    log.warn('the dashboard is not served', { why: messageOf(error), againSeconds: againMs / 1000 });
    opening = openLater();
  }
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await opening;
      await rm(file, { force: true });
      await served?.[Symbol.asyncDispose]();
    },
  };
}
