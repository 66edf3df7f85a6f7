import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import { isServed } from '#host/socket/is-served.ts';
import { poll } from '#host/wait.ts';
import { answersFrom } from './answer-away.ts';
import { keeperSocketsOf } from './keeper-sockets.ts';
import { KeptFifos } from './kept-fifos.ts';
import { type Daemon, Relay } from './relay.ts';
import { serveFifos } from './serve-fifos.ts';

const lookMs = 100;

/** Serves containerd and the daemon as the keeper, until it is disposed. `records`: directory of the records of tasks. */
export async function serveKeeper(shimSocket: string, records: string): Promise<AsyncDisposable> {
  const sockets = keeperSocketsOf(shimSocket);
  for (const path of [sockets.shim, sockets.keeper]) await rm(path, { force: true });
  const own = await serveFifos(sockets.keeper, new KeptFifos());
  const closing = new AbortController();
  const daemon = lookFor(sockets.daemon, closing.signal);
  const answerAway = answersFrom(records);
  const server = createServer((socket) => void new Relay(socket, daemon, answerAway));
  server.listen(sockets.shim);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  const ends = [own, server].map(track);
  return {
    async [Symbol.asyncDispose]() {
      closing.abort();
      await Promise.all(ends.map((end) => end()));
    },
  };
}

/** The connections of a server end with it. */
function track(server: Server): () => Promise<void> {
  const sockets = new Set<{ destroy(): unknown }>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return async () => {
    const closed = once(server, 'close');
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
}

/** One check for all connections. */
function lookFor(socketPath: string, signal: AbortSignal): Daemon {
  let looking: Promise<boolean> | undefined;
  const look = async () => ((await isServed(socketPath)) ? true : undefined);
  return {
    socketPath,
    async serves() {
      looking ??= poll(look, { everyMs: lookMs, signal }).then((found) => {
        looking = undefined;
        return found === true;
      });
      return await looking;
    },
  };
}
