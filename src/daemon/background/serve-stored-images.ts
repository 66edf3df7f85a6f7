import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { imageRoutes } from '#admin/routes/image-routes.ts';
import { serveRoutes } from '#admin/serve-routes.ts';
import { kindOf } from '#base/errors.ts';
import { retry } from '#host/wait.ts';
import { isServed } from '#host/socket/is-served.ts';
import { openImageStore } from '#image/store/image-store.ts';
import { lockDirectory } from '#sandbox/recovery/lock.ts';
import { readCurrent } from '#setup/setup.ts';
import { commandLog } from '../command-log.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { requireRoot } from './serve-here.ts';
import { openStateDirectory } from '../state-directory.ts';

/**
 * Time that another podvm may use the state directory without serving it, in `ms`: a short command such as this one.
 */
const patienceMs = 10_000;
const lookAgainMs = 50;

/**
 * Serves only this command with the stored images, without machines or set-up. Returns the socket of another podvm that
 * begins to serve the state directory first. Errors: `denied`, `busy`.
 */
export async function serveStoredImages(
  config: Configuration,
  write: (line: string) => void,
): Promise<AsyncDisposable & { readonly socketPath: string }> {
  requireRoot('access images');
  await openStateDirectory(config.root);
  await using undo = new AsyncDisposableStack();
  const lock = await lockOrServed(config);
  if (lock === undefined) return { socketPath: config.socketPath, [Symbol.asyncDispose]: () => Promise.resolve() };
  undo.use(lock);
  const images = await openImageStore({
    directory: join(config.root, 'images'),
    sysroot: (await readCurrent(config.root))?.sysroot ?? '',
    containersDirectory: config.containersDirectory,
    ...(config.authFile === undefined ? {} : { authFile: config.authFile }),
    log: commandLog(config, write),
  });
  const { socketPath } = undo.use(await serveRoutes(imageRoutes(images)));
  const owned = undo.move();
  return { socketPath, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Takes the lock of the whole state directory, which is the sandboxes'; undefined if a process serves it now. */
async function lockOrServed({ root, socketPath }: Configuration): Promise<AsyncDisposable | undefined> {
  const directory = join(root, 'sandboxes');
  await mkdir(directory, { recursive: true, mode: 0o711 });
  let isServedBy = false;
  const isHeldBriefly = async (error: unknown) => {
    if (kindOf(error) !== 'busy') return false;
    isServedBy = await isServed(socketPath);
    return !isServedBy;
  };
  try {
    return await retry(() => lockDirectory(directory), isHeldBriefly, { everyMs: lookAgainMs, forMs: patienceMs });
  } catch (error) {
    if (isServedBy) return undefined;
    throw error;
  }
}
