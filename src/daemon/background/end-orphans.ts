import { join } from 'node:path';
import { endOrphans as endOrphansOf, type Orphan } from '#sandbox/recovery/orphans.ts';
import { endKeeper } from '#shim/keeper/keeper.ts';
import { sweepMachine } from '#vm/qemu/qemu-driver.ts';
import { commandLog } from '../command-log.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { openNetwork } from '../node/node-network.ts';
import { requireRoot } from './serve-here.ts';

/** Runs `podvm stop --orphaned`, without set-up. Errors: `denied`, `busy`. */
export async function endOrphans(config: Configuration, write: (line: string) => void): Promise<readonly Orphan[]> {
  requireRoot('end machines');
  const log = commandLog(config, write);
  const parts = { network: openNetwork(config, 'command', log), driver: { sweep: sweepMachine } };
  const ended = await endOrphansOf(config.root, parts, log, new AbortController().signal);
  await endKeeper(join(config.root, 'shim'), config.shimSocketPath); // no pod is left for the keeper
  return ended;
}
