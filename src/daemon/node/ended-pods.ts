import { join } from 'node:path';
import { EndedPods } from '#admin/record/ended-pods.ts';
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

/** Serves the ended pods and the volumes to this command only, without a node. */
export async function serveEndedPods(
  config: Configuration,
  write: (line: string) => void,
): Promise<AsyncDisposable & { readonly socketPath: string }> {
  return await serveRoutes(endedRoutes(await openEndedPods(config, commandLog(config, write)), openVolumes(config)));
}
