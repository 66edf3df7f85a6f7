import { createLog } from '#host/log.ts';
import { endOrphans as endOrphansOf, type Orphan } from '#sandbox/recovery/orphans.ts';
import { sweepMachine } from '#vm/qemu/qemu-driver.ts';
import type { Configuration } from './configuration.ts';
import { openNetwork } from './node-network.ts';
import { requireRoot } from './serve-here.ts';

/** Runs `podvm stop --orphaned`, without set-up. Errors: `denied`, `busy`. */
export async function endOrphans(config: Configuration, write: (line: string) => void): Promise<readonly Orphan[]> {
  requireRoot('end machines');
  const log = createLog(config.logLevel, write);
  const parts = { network: openNetwork(config, 'command', log), driver: { sweep: sweepMachine } };
  return await endOrphansOf(config.root, parts, log, new AbortController().signal);
}
