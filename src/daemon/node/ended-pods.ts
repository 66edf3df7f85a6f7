import { join } from 'node:path';
import { EndedPods } from '#admin/record/ended-pods.ts';
import { type LeftJob, readJobs } from '#admin/record/job-record.ts';
import { endedRoutes } from '#admin/routes/ended-routes.ts';
import { serveRoutes } from '#admin/serve-routes.ts';
import { NamedVolumes } from '#storage/named-volumes.ts';
import type { Log } from '#host/log/log.ts';
import { commandLog } from '../command-log.ts';
import type { Configuration } from '../configuration/configuration.ts';

/** Opens the ended pods of this state directory. Reading is possible while another process serves it. */
export const openEndedPods = ({ root, endedPods }: Configuration, log: Log): Promise<EndedPods> =>
  EndedPods.open({ directory: join(root, 'ended'), limits: endedPods, log });

/** The named volumes of this state directory. */
export const openVolumes = ({ root }: Configuration): NamedVolumes => new NamedVolumes(join(root, 'volumes'));

/** The Jobs of this state directory. Reading is possible while another process serves it. */
export const openJobs = ({ root }: Configuration, log: Log): Promise<readonly LeftJob[]> =>
  readJobs(join(root, 'jobs'), log);

/** Serves the ended pods, the Jobs and the volumes to this command only, without a node. */
export async function serveEndedPods(
  config: Configuration,
  write: (line: string) => void,
): Promise<AsyncDisposable & { readonly socketPath: string }> {
  const log = commandLog(config, write);
  const jobs = (await openJobs(config, log)).map(({ job, progress: { outcome } }) => ({
    job,
    ...(outcome === undefined ? {} : { outcome }),
  }));
  return await serveRoutes(endedRoutes(await openEndedPods(config, log), jobs, openVolumes(config)));
}
