import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { createWebSocketStream, type WebSocket, WebSocketServer } from 'ws';
import { messageOf, PodvmError } from '#base/errors.ts';
import { refuseWhileShort } from '#host/socket/accept-errors.ts';
import type { Clock } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import { createServer } from '#host/socket/node-http.ts';
import { type Agreement, negotiate, tunnelProtocol } from './negotiate.ts';
import { portForwardProtocol, servePortForward } from './port-forward.ts';
import { type ProcessChannels, serveAttach, serveExec } from './process-session.ts';
import { headersOf, relay, type RelayRequest, upgradeAt } from './relay.ts';
import type { SessionParts } from './session-parts.ts';
import { serveSpdyChannels, spdyProcessProtocols } from './spdy-channels.ts';
import type { PortForwardStreamRequest, StreamChoice, StreamingServer } from './streaming.ts';
import { type StreamRequest, Tokens } from './tokens.ts';
import { processProtocols, serveWebSocketChannels } from './websocket-channels.ts';
import { forwardProtocols, serveWebSocketPortForward } from './websocket-port-forward.ts';

export interface StreamingSettings {
  /**
   * Address to listen on. Any client that reaches it and knows a token may use it: use loopback, unless kubelets are
   * elsewhere.
   */
  readonly address: string;
  /** Port; 0 takes any free one. */
  readonly port: number;
  /** Idle limit of a session in `ms`; the kubelet's default is 4 hours. */
  readonly idleMs: number;
  /** Time to open the streams in `ms`; the kubelet's server allows 30 s. */
  readonly openMs: number;
}

export const defaultStreamingSettings: StreamingSettings = {
  address: '127.0.0.1',
  port: 0,
  idleMs: 4 * 60 * 60 * 1000,
  openMs: 30_000,
};

const maxSessions = 1000;
const maxWebSocketMessageBytes = 1024 * 1024;
const maxHttpHeaderBytes = 16 * 1024;
const handshakeMs = 10_000;
const keepAliveMs = 30_000;
const farewellMs = 1000;

/** Starts the server. Errors: `failedPrecondition` when it cannot listen on the address. */
export async function serveStreaming(
  settings: StreamingSettings,
  parts: { readonly clock: Clock; readonly log: Log },
): Promise<StreamingServer> {
  const closing = new AbortController();
  const sessions = new Set<Promise<void>>();
  const tokens = new Tokens(parts.clock);
  const sessionParts: SessionParts = { ...parts, ...settings, closing: closing.signal };
  const http = createServer({
    maxHeaderSize: maxHttpHeaderBytes,
    headersTimeout: handshakeMs,
    requestTimeout: handshakeMs,
  });
  http.on('request', (_request, response) => {
    response.writeHead(404, { connection: 'close' }).end('No such stream, or not an upgrade request.\n');
  });
  http.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    const asked = find(tokens, request.url ?? '');
    if (asked === undefined) {
      refuse(socket, '404 Not Found', 'No such stream: a URL works once, within a minute.');
      return;
    }
    const agreement = negotiate(asked.request, request.headers);
    if (agreement.transport === 'none') {
      refuseProtocol(socket, agreement);
      return;
    }
    if (sessions.size >= maxSessions) {
      refuse(socket, '503 Service Unavailable', `The limit of ${maxSessions} streams is reached.`);
      return;
    }
    tokens.redeem(asked.token);
    if ('setKeepAlive' in request.socket) request.socket.setKeepAlive(true, keepAliveMs).setNoDelay(true).setTimeout(0);
    const session = serveOne(asked.request, agreement, { request, socket, head }, sessionParts).catch(
      (error: unknown) => {
        parts.log.error('streaming session failed', error, { kind: asked.request.kind });
        socket.destroy();
      },
    );
    sessions.add(session);
    void session.finally(() => sessions.delete(session));
  });
  const baseUrl = await listen(http, settings);
  refuseWhileShort(http);
  return {
    baseUrl,
    execUrl: (request) => {
      checkChoice(request);
      if (request.command.length === 0) throw new PodvmError('invalid', 'Cannot run a command: the command is empty');
      return `${baseUrl}/exec/${tokens.issue({ kind: 'exec', ...request })}`;
    },
    attachUrl: (request) => {
      checkChoice(request);
      return `${baseUrl}/attach/${tokens.issue({ kind: 'attach', ...request })}`;
    },
    portForwardUrl: (request) => {
      checkPorts(request);
      return `${baseUrl}/portforward/${tokens.issue({ kind: 'portforward', ...request })}`;
    },
    relayedPortForwardUrl: (there) => {
      const url = URL.parse(there);
      return url?.protocol === 'http:' ? `${baseUrl}/relay/${tokens.issue({ kind: 'relay', url })}` : there;
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      const isClosed = http.listening ? once(http, 'close') : undefined;
      http.close();
      http.closeAllConnections();
      await Promise.all(sessions);
      await isClosed;
    },
  };
}

async function listen(http: Server, { address, port }: StreamingSettings): Promise<string> {
  try {
    http.listen(port, address);
    await once(http, 'listening');
  } catch (cause) {
    throw new PodvmError('failedPrecondition', `Cannot serve streams on ${address} port ${port}`, {
      cause,
      fix: 'Choose an address of this machine and a free port.',
    });
  }
  // SAFE: a server that listens on TCP has such an address.
  const bound = http.address() as AddressInfo;
  return `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`;
}

/** Checks the rules of CRI's ExecRequest and AttachRequest. */
function checkChoice({ stdin, stdout, stderr, tty }: StreamChoice): void {
  if (tty && stderr) throw new PodvmError('invalid', 'Cannot open a stream: tty and stderr cannot both be true');
  if (!stdin && !stdout && !stderr) {
    throw new PodvmError('invalid', 'Cannot open a stream: one of stdin, stdout and stderr must be true');
  }
}

function checkPorts({ ports }: PortForwardStreamRequest): void {
  const wrong = ports.find((port) => port < 1 || port > 65_535);
  if (wrong === undefined) return;
  throw new PodvmError('invalid', `Cannot forward ports: a port must be 1 to 65535, got ${wrong}`);
}

function find(tokens: Tokens, url: string): { readonly token: string; readonly request: StreamRequest } | undefined {
  const [, kind, token = ''] = /^\/(exec|attach|portforward|relay)\/([A-Za-z0-9_-]+)(?:\?.*)?$/.exec(url) ?? [];
  const request = tokens.look(token);
  return request !== undefined && request.kind === kind ? { token, request } : undefined;
}

interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
}

/** Serves one session. Resolves when client and session are gone. */
async function serveOne(
  request: StreamRequest,
  agreement: Exclude<Agreement, { transport: 'none' }>,
  upgrade: Upgrade,
  parts: SessionParts,
): Promise<void> {
  const { protocol } = agreement;
  if (request.kind === 'relay') {
    await serveRelay(request, protocol, upgrade, parts);
    return;
  }
  const serve = (process: ProcessRequest) => (channels: ProcessChannels) => serveProcess(process, channels, parts);
  if (agreement.transport === 'spdy') {
    const { socket, head } = upgrade;
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n' +
        `X-Stream-Protocol-Version: ${protocol}\r\n\r\n`,
    );
    if (head.length > 0) socket.unshift(head);
    if (request.kind === 'portforward') await servePortForward(socket, request, parts);
    else await serveSpdyChannels(socket, agreed(spdyProcessProtocols, protocol), request, parts, serve(request));
    return;
  }
  const socket = await acceptWebSocket(upgrade, protocol);
  if (socket === undefined) return;
  if (request.kind !== 'portforward') {
    await serveWebSocketChannels(socket, agreed(processProtocols, protocol), request, parts, serve(request));
    return;
  }
  if (protocol !== tunnelProtocol) {
    await serveWebSocketPortForward(socket, agreed(forwardProtocols, protocol), request, parts);
    return;
  }
  const tunnel = createWebSocketStream(socket);
  tunnel.on('error', () => {}); // the session handles it
  await servePortForward(tunnel, request, parts);
}

/** Serves a stream of another runtime's server, which does not know the tunnel through WebSocket messages. */
async function serveRelay(
  request: RelayRequest,
  protocol: string,
  upgrade: Upgrade,
  parts: SessionParts,
): Promise<void> {
  const isTunnel = protocol === tunnelProtocol;
  const spdy = { connection: 'Upgrade', upgrade: 'SPDY/3.1', 'x-stream-protocol-version': portForwardProtocol };
  const opened = await upgradeAt(request, isTunnel ? spdy : headersOf(upgrade.request), parts).catch(
    (error: unknown) => {
      refuse(upgrade.socket, '502 Bad Gateway', `${messageOf(error)}.`);
      parts.log.debug('a stream of the delegate failed', { why: messageOf(error) });
    },
  );
  if (opened === undefined) return;
  if (!isTunnel) {
    const { socket, head } = upgrade;
    socket.write(opened.head);
    if (head.length > 0) socket.unshift(head);
    await relay(socket, opened.socket, parts.closing);
    return;
  }
  const socket = await acceptWebSocket(upgrade, protocol);
  if (socket === undefined) opened.socket.destroy();
  else await relay(createWebSocketStream(socket), opened.socket, parts.closing);
}

type ProcessRequest = Exclude<StreamRequest, { kind: 'portforward' | 'relay' }>;

function agreed<T>(protocols: ReadonlyMap<string, T>, name: string): T {
  const found = protocols.get(name);
  assert(found !== undefined, `protocol ${name} was not negotiated`);
  return found;
}

async function serveProcess(request: ProcessRequest, channels: ProcessChannels, parts: SessionParts): Promise<void> {
  if (request.kind === 'exec') await serveExec(request, channels, parts);
  else await serveAttach(request, channels, parts);
}

/** Accepts the handshake; undefined if it was refused with a response to the client, or the client is gone. */
async function acceptWebSocket(upgrade: Upgrade, protocol: string): Promise<WebSocket | undefined> {
  if (upgrade.socket.destroyed) return undefined;
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: maxWebSocketMessageBytes,
    perMessageDeflate: false,
  });
  // Added here because `ws` refuses the tunnel's protocol name with its slash (RFC 6455, section 4.1).
  delete upgrade.request.headers['sec-websocket-protocol'];
  if (protocol !== '') server.on('headers', (lines) => lines.push(`Sec-WebSocket-Protocol: ${protocol}`));
  return await new Promise((resolve) => {
    upgrade.socket.once('close', () => resolve(undefined));
    server.handleUpgrade(upgrade.request, upgrade.socket, upgrade.head, (socket) => {
      socket.on('error', () => socket.terminate());
      resolve(socket);
    });
  });
}

function refuseProtocol(socket: Duplex, { status, why, accepted }: Extract<Agreement, { transport: 'none' }>): void {
  const names = accepted.map((name) => `X-Accepted-Stream-Protocol-Versions: ${name}\r\n`).join('');
  refuse(socket, status === 400 ? '400 Bad Request' : '403 Forbidden', `${why}.`, names);
}

function refuse(socket: Duplex, status: string, why: string, headers = ''): void {
  const body = `${why}\n`;
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`,
  );
  socket.resume();
  // The socket of an upgrade has no other owner, so a client that does not close it is disconnected.
  const late = setTimeout(() => socket.destroy(), farewellMs);
  socket.once('close', () => clearTimeout(late));
}
