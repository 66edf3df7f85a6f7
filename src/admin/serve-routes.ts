import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import { createServer } from '#host/socket/node-http.ts';
import { answerBy, type Routes } from './routes.ts';

/** Serves some calls of the admin API to this process only, on a socket in its own directory, until disposed. */
export async function serveRoutes(routes: Routes): Promise<AsyncDisposable & { readonly socketPath: string }> {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-'));
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  const socketPath = join(directory, 'podvm.sock');
  const server = createServer(answerBy(routes));
  server.listen(socketPath);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  undo.defer(async () => {
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  });
  const owned = undo.move();
  return { socketPath, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
