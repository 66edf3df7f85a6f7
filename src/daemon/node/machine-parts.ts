import { join } from 'node:path';
import { type Assets, partVersionsOf } from '#host/assets.ts';
import type { Log } from '#host/log/log.ts';
import type { Parts } from '#sandbox/parts.ts';
import { createFileServers } from '#storage/file-server.ts';
import type { Accelerator } from '#vm/driver.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';
import type { Configuration } from '../configuration/configuration.ts';

/** Parts of sandboxes that an upgrade replaces, because set-up makes them. */
export type MachineParts = Pick<Parts, 'driver' | 'files' | 'modulesDisk' | 'versions'>;

export function machinePartsOf(
  config: Configuration,
  assets: Assets,
  accelerator: Accelerator,
  log: Log,
): MachineParts {
  return {
    driver: createQemuDriver({
      assets,
      accelerator,
      templates: join(config.root, 'templates'),
      console: config.console === 'on' ? 'file' : config.console,
      requiresCgroup: config.requiresCgroup,
      maySwap: config.maySwap,
      diskBytesPerSecond: config.diskBytesPerSecond,
      onUnprotected: (why) =>
        log.warn('the host does not allow negative OOM scores: pods of higher classes are not killed last', { why }),
      onUnconfined: (why) => log.warn('the host does not limit machines', { why }),
    }),
    files: createFileServers(assets),
    modulesDisk: assets.modules,
    versions: partVersionsOf(assets),
  };
}
