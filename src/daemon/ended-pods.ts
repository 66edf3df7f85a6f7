import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EndedPods } from '#admin/ended-pods.ts';
import { serveEndedRoutes } from '#admin/ended-server.ts';
import type { Log } from '#host/log.ts';
import { commandLog } from './command-log.ts';
import type { Configuration } from './configuration.ts';

/** Opens the pods of this state directory that have ended. Works beside a process that serves it, for reading. */
export const openEndedPods = ({ root, endedPods }: Configuration, log: Log): Promise<EndedPods> =>
  EndedPods.open({ directory: join(root, 'ended'), limits: endedPods, log });

/** Serves only this command with the pods that have ended, without a node. */
export async function serveEndedPods(
  config: Configuration,
  write: (line: string) => void,
): Promise<AsyncDisposable & { readonly socketPath: string }> {
  await using undo = new AsyncDisposableStack();
  const ended = await openEndedPods(config, commandLog(config, write));
  const directory = await mkdtemp(join(tmpdir(), 'podvm-'));
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  const socketPath = join(directory, 'ended.sock');
  undo.use(await serveEndedRoutes(socketPath, ended));
  const owned = undo.move();
  return { socketPath, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
