import { constants } from 'node:fs';
import { chown, open, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';

/** A unix socket that somebody may connect to, once. Disposing takes it away; the connection lives on. */
export interface OfferedSocket extends AsyncDisposable {
  /** Errors: `cancelled`. */
  connection(signal: AbortSignal): Promise<Socket>;
}

/** Makes the socket for that user, in a directory that only root can write to. Errors: `internal`. */
export async function offerSocket(path: string, uid: number): Promise<OfferedSocket> {
  await using undo = new AsyncDisposableStack();
  const directory = undo.use(await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY));
  const address = `/proc/self/fd/${directory.fd}/${basename(path)}`; // of any length, which a socket's name is not
  const { promise, resolve } = Promise.withResolvers<Socket>();
  const untaken = new Set<Socket>();
  const server = createServer((socket) => {
    server.close(); // no second one
    untaken.add(socket);
    resolve(socket);
  });
  undo.defer(() => {
    for (const socket of untaken) socket.destroy();
  });
  undo.defer(() => rm(path, { force: true }));
  undo.defer(() => void server.close());
  try {
    await listening(server, address);
    await chown(path, uid, uid);
  } catch (cause) {
    throw new PodvmError('internal', `Cannot listen on ${path}`, { cause });
  }
  const owned = undo.move();
  return {
    async connection(signal) {
      const socket = await Promise.race([promise, aborted(path, signal)]);
      untaken.delete(socket);
      return socket;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

function aborted(path: string, signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const abort = () => reject(new PodvmError('cancelled', `Cannot wait for a connection to ${path}: cancelled`));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}
