import { constants } from 'node:fs';
import { chmod, chown, open, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { kindOf, PodvmError } from '#base/errors.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';

/** A unix socket that accepts one connection. Disposing ends the wait and removes the socket. */
export interface Doorway extends AsyncDisposable {
  /** Waits for the connection. Errors: `cancelled`, `exhausted` if it cannot be accepted. */
  accept(signal: AbortSignal): Promise<Socket>;
}

/**
 * Listens in a directory where a VMM may connect but cannot create files. This process creates the socket with access
 * for that group only, and closes every connection after the first. Errors: `internal`, `exhausted`.
 */
export async function openDoorway(path: string, groupId: number): Promise<Doorway> {
  await using undo = new AsyncDisposableStack();
  const directory = undo.use(await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY));
  undo.defer(() => rm(path, { force: true }));
  await rm(path, { force: true });
  const first = Promise.withResolvers<Socket>();
  first.promise.catch(() => undefined); // there may be no waiter yet
  let isTaken = false;
  const server = createServer((socket) => {
    socket.on('error', () => undefined); // 'close' follows and is what owners listen to
    if (isTaken) socket.destroy();
    isTaken = true;
    first.resolve(socket);
  });
  undo.defer(() => void server.close()); // not awaited: the callback would also wait for the connection's end
  // A path through the directory's descriptor fits into `sun_path` at any depth of the directory.
  await listening(server, `/proc/self/fd/${directory.fd}/${basename(path)}`, path);
  outliveAcceptErrors(server);
  server.on('error', (cause: NodeJS.ErrnoException) => {
    first.reject(new PodvmError(kindOf(cause), `Cannot accept a connection at ${path}: ${cause.message}`, { cause }));
  });
  await chown(path, 0, groupId);
  await chmod(path, 0o660);
  const owned = undo.move();
  return {
    accept: async (signal) => {
      const cancelled = Promise.withResolvers<never>();
      const abort = () =>
        cancelled.reject(new PodvmError('cancelled', `Cannot wait at ${path}: cancelled`, { cause: signal.reason }));
      signal.addEventListener('abort', abort, { once: true });
      if (signal.aborted) abort();
      try {
        return await Promise.race([first.promise, cancelled.promise]);
      } catch (error) {
        first.promise.then(
          (late) => late.destroy(),
          () => undefined,
        );
        throw error;
      } finally {
        signal.removeEventListener('abort', abort);
      }
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function listening(server: Server, address: string, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new PodvmError('internal', `Cannot listen at ${path}: ${cause.message}`, { cause }));
    });
    server.listen(address, resolve);
  });
}
