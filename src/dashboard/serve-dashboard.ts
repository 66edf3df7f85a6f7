import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { OpenedLink } from '#api/pod-link.ts';
import { PodvmError } from '#base/errors.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import { createServer } from '#host/socket/node-http.ts';
import { checkCall, checkHost } from './access.ts';
import { readAssets, typeOf } from './assets.ts';
import type { Asset } from './bundle-client.ts';
import { Connections, maxConnections } from './connections.ts';
import { forward, forwardSession, isCall, noSuchCall, sendError, sendJson } from './forwarding.ts';
import { isPage, page, safetyHeaders } from './page.ts';
import { PodLinks } from './pod-links.ts';
import type { PodPort } from './pod-connection.ts';

export interface Dashboard extends AsyncDisposable {
  /** Address of the first page, with the token in its fragment, which a browser does not send. */
  readonly url: string;
}

export interface DashboardWish {
  /** Socket of the admin API, whose calls are made with the rights of this process. */
  readonly socketPath: string;
  /** Port of loopback; 0: any free one. */
  readonly port: number;
}

const maxHeaderBytes = 64 * 1024;
/** Time for a request to arrive whole, in `ms`. */
const requestTimeoutMs = 10_000;

/**
 * Serves the dashboard's pages on loopback, and passes their calls on to the admin socket. Calls need the token, which is
 * made here and known only to the reader of the address. Errors: `busy` when the port is taken, `unavailable`.
 */
export async function serveDashboard({ socketPath, port }: DashboardWish): Promise<Dashboard> {
  const assets = await readAssets();
  const token = randomBytes(32).toString('hex');
  const links = new PodLinks(socketPath);
  const connections = new Connections();
  const isTooMany = (request: IncomingMessage, to?: PodPort) =>
    !connections.give(request.socket, to === undefined ? { kind: 'page' } : { kind: 'link', to });
  let hasBothLoopbacks = false;
  const limits = { maxHeaderSize: maxHeaderBytes, requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs };
  const answer: RequestListener = (request, response) => {
    const linked = links.find(request);
    try {
      if (linked !== undefined) {
        if (isTooMany(request, linked)) throw tooMany();
        return links.forward(linked, request, response);
      }
      const path = pathOf(request);
      if (isCall(path)) {
        checkCall(request, token);
        if (isTooMany(request)) throw tooMany();
        const wanted = portToOpen(path, request);
        if (wanted === undefined) forward(socketPath, request, response);
        else if (hasBothLoopbacks) sendJson(response, 201, { host: links.open(wanted) } satisfies OpenedLink);
        else sendError(response, 409, notAlone());
      } else {
        checkHost(request);
        sendFile(path, assets, request, response);
      }
    } catch (error) {
      refuse(response, error);
    }
  };
  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const drop = () => socket.destroy();
    socket.on('error', drop);
    socket.once('end', drop); // Node leaves the other half of it open
    const linked = links.find(request);
    const end = (status: string) =>
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, drop);
    try {
      if (linked === undefined) checkCall(request, token);
      if (isTooMany(request, linked)) end('503 Service Unavailable');
      else if (linked !== undefined) links.forwardUpgrade(linked, request, socket, head);
      else forwardSession(socketPath, request, socket, head);
    } catch {
      end('403 Forbidden');
    }
  };
  const make = () =>
    createServer(limits, answer)
      .on('upgrade', upgrade)
      .on('connection', (socket) => connections.opened(socket));
  await using undo = new AsyncDisposableStack();
  const at = undo.use(
    await listen(make(), port, '127.0.0.1').catch((cause: NodeJS.ErrnoException) => {
      const isTaken = cause.code === 'EADDRINUSE';
      throw new PodvmError(isTaken ? 'busy' : 'unavailable', `Cannot serve the dashboard on 127.0.0.1 port ${port}`, {
        cause,
        fix: 'Choose another port (--port, or the setting `dashboardAddress` of a daemon), or 0 for any free one.',
      });
    }),
  ).port;
  // A browser looks for the host of a link at ::1 first, where another user's server must not get its requests.
  const other = await listen(make(), at, '::1').catch((cause: NodeJS.ErrnoException) => cause);
  if (!(other instanceof Error)) undo.use(other);
  hasBothLoopbacks = !(other instanceof Error) || ['EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(other.code ?? '');
  const owned = undo.move();
  return { url: `http://127.0.0.1:${at}/#token=${token}`, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Errors: those of listen(2). */
async function listen(
  server: ReturnType<typeof createServer>,
  port: number,
  address: string,
): Promise<AsyncDisposable & { readonly port: number }> {
  server.maxConnections = maxConnections;
  const open = new Set<Disposable>();
  server.on('connection', (socket) => {
    const held = { [Symbol.dispose]: () => void socket.destroy() };
    open.add(held);
    socket.once('close', () => open.delete(held));
  });
  server.listen(port, address);
  await once(server, 'listening');
  outliveAcceptErrors(server);
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of open) socket[Symbol.dispose](); // also those of WebSockets
      await closed;
    },
  };
}

/** The port in `POST /links/NAMESPACE/POD/PORT`, which opens a link; undefined for another call. */
function portToOpen(path: string, { method }: IncomingMessage): PodPort | undefined {
  const [, namespace = '', name = '', port] = /^\/links\/([-a-z0-9.]+)\/([-a-z0-9.]+)\/(\d{1,5})$/.exec(path) ?? [];
  if (method !== 'POST' || port === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
  return { namespace, name, port: Number(port) };
}

const tooMany = () =>
  new PodvmError('exhausted', 'Cannot answer: too many connections to the dashboard, or of this link, are open', {
    fix: 'Close tabs of the dashboard, or of the page of the pod.',
  });

const notAlone = () =>
  new PodvmError('busy', 'Cannot open a link: another program has this port at ::1, where browsers look first', {
    fix: 'Serve the dashboard on another port, or use `podvm port-forward`.',
  });

const pathOf = ({ url = '/' }: IncomingMessage): string => URL.parse(`http://podvm${url}`)?.pathname ?? '';

/** Sends a page or a file that pages load. Errors: `notFound`. */
function sendFile(
  path: string,
  assets: ReadonlyMap<string, Asset>,
  { method }: IncomingMessage,
  response: ServerResponse,
): void {
  const asset = path.startsWith('/assets/') ? assets.get(path.slice('/assets/'.length)) : undefined;
  if (method !== 'GET' || (asset === undefined && !isPage(path))) throw noSuchCall();
  const type = asset === undefined ? 'text/html; charset=utf-8' : typeOf(asset);
  response.writeHead(200, { ...safetyHeaders, 'content-type': type }).end(asset?.bytes ?? page);
}

function refuse(response: ServerResponse, error: unknown): void {
  if (!(error instanceof PodvmError)) throw error;
  if (error.kind !== 'notFound') response.setHeader('connection', 'close');
  sendError(response, error.kind === 'denied' ? 403 : error.kind === 'exhausted' ? 503 : 404, error);
}
