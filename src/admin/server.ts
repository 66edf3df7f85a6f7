import { once } from 'node:events';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { type IncomingMessage, createServer } from 'node:http';
import { dirname } from 'node:path';
import { type WebSocket, WebSocketServer } from 'ws';
import { PodvmError } from '#base/errors.ts';
import { outliveAcceptErrors } from '#host/accept-errors.ts';
import { isServed } from '#host/is-served.ts';
import type { ImageStore } from '#image/images.ts';
import { serveExec } from './exec-session.ts';
import { imageRoutes } from './image-routes.ts';
import { serveInput } from './input-session.ts';
import { findInput, podRoutes, startExec } from './pod-routes.ts';
import { type Asked, answerBy, find, type Table } from './routes.ts';
import { monitoringRoutes, type MonitoringParts } from './monitoring-routes.ts';
import { type RunParts, serveRun } from './run-session.ts';

export interface AdminParts extends RunParts {
  readonly images: ImageStore;
  readonly monitoring: MonitoringParts;
}

/** The admin server. Disposing refuses new clients, ends the runs of connected ones, and removes the socket. */
export interface AdminServer extends AsyncDisposable {
  /** Resolves when no client has a `podvm run` in progress. */
  idle(): Promise<void>;
}

/** Largest WebSocket message from a client, in bytes: a manifest. */
const maxMessageBytes = 16 * 1024 * 1024;
/** Largest request header, in bytes. An exec URL holds a command of up to 2 MiB, three times as much when encoded. */
const maxHeaderBytes = 8 * 1024 * 1024;

/**
 * Serves the admin API (`#api`) on a unix socket that only root may open. Errors: `busy` when another process serves
 * it.
 */
export async function serveAdmin(socketPath: string, parts: AdminParts): Promise<AdminServer> {
  await mkdir(dirname(socketPath), { recursive: true, mode: 0o755 });
  await removeStale(socketPath);
  const runs = new Set<Promise<void>>();
  const routes = {
    ...imageRoutes(parts.images),
    ...podRoutes(parts.pods, parts.sandboxes),
    ...monitoringRoutes(parts.monitoring),
  };
  const server = createServer({ maxHeaderSize: maxHeaderBytes }, answerBy(routes));
  const sockets = new WebSocketServer({ noServer: true, maxPayload: maxMessageBytes, perMessageDeflate: false });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.on('error', (error) => parts.log.warn('client failed', { err: error.message }));
      const session = converse(parts, request, client).catch((error: unknown) => {
        parts.log.error('session failed', error);
        client.terminate();
      });
      runs.add(session);
      void session.finally(() => runs.delete(session));
    });
  });
  server.listen(socketPath);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  await chmod(socketPath, 0o600);
  return {
    async idle() {
      while (runs.size > 0) await Promise.all(runs);
    },
    async [Symbol.asyncDispose]() {
      server.close();
      for (const client of sockets.clients) client.close(1001);
      await Promise.all(runs);
      server.closeAllConnections();
      await rm(socketPath, { force: true });
    },
  };
}

async function removeStale(socketPath: string): Promise<void> {
  const answered = await isServed(socketPath);
  if (answered)
    throw new PodvmError('busy', `Cannot serve ${socketPath}: another podvm serves it`, {
      fix: 'Stop that podvm, or choose another directory with --root.',
    });
  await rm(socketPath, { force: true });
}

type Session = (client: WebSocket, asked: Asked, parts: AdminParts) => Promise<void>;

/** What a WebSocket is opened for. */
const sessions: Table<Session> = {
  '/v1/run': (client, _, parts) => serveRun(client, parts),
  '/v1/pods/:namespace/:name/exec': (client, asked, { pods, log }) =>
    serveExec(client, asked.query.get('tty') === 'true', () => startExec(pods, asked), log),
  '/v1/pods/:namespace/:name/input': (client, asked, { pods, log }) =>
    serveInput(client, () => findInput(pods, asked), log),
};

async function converse(parts: AdminParts, request: IncomingMessage, client: WebSocket): Promise<void> {
  let found;
  try {
    found = find(sessions, request);
  } catch (error) {
    return await serveExec(client, false, () => Promise.reject(error), parts.log);
  }
  await found.handler(client, found.asked, parts);
}
