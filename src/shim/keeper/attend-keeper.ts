import { watch } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { isThere } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import { endKeeper, type Keeper } from './keeper.ts';

export interface AttendOptions {
  readonly keeper: Keeper;
  /** Private directory of the shim. */
  readonly directory: string;
  /** Whether containerd has tasks here. */
  readonly hasTasks: () => boolean;
  readonly log: Log;
}

/**
 * Starts a keeper when containerd's launcher asks for one; at once if it has asked before, or if there are tasks. A
 * keeper without tasks is replaced by one of this version, and ends with the daemon.
 */
export async function attendKeeper({ keeper, directory, hasTasks, log }: AttendOptions): Promise<AsyncDisposable> {
  const { shim, wanted } = keeper.sockets;
  if (!hasTasks()) await endKeeper(directory, shim);
  await mkdir(dirname(wanted), { recursive: true, mode: 0o755 });
  const start = () => void keeper.start().catch((error: unknown) => log.error('keeper not started', error));
  const watcher = watch(dirname(wanted), { persistent: false }, (_event, name) => {
    if (name === basename(wanted)) start();
  });
  watcher.on('error', (error) => log.error('the launcher of containerd is not heard', error));
  if (hasTasks() || (await isThere(wanted))) await keeper.start();
  return {
    async [Symbol.asyncDispose]() {
      watcher.close();
      keeper[Symbol.dispose]();
      if (!hasTasks()) await endKeeper(directory, shim);
    },
  };
}
