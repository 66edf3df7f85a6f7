import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { request as requestOf } from '#host/socket/node-http.ts';
import { chosenProtocol } from './access.ts';
import { safetyHeaders } from './page.ts';

/** Calls of the admin API that pages make. All others are refused: starting pods, pulling images, draining. */
export const forwardedCalls = [
  'GET /metrics',
  'GET /readyz',
  'GET /v1/version',
  'GET /v1/node',
  'GET /v1/disk-usage',
  'GET /v1/pods',
  'GET /v1/pods/:namespace/:name',
  'GET /v1/pods/:namespace/:name/description',
  'GET /v1/pods/:namespace/:name/diagnosis',
  'GET /v1/pods/:namespace/:name/manifest',
  'GET /v1/pods/:namespace/:name/logs',
  'GET /v1/pods/:namespace/:name/console',
  'GET /v1/events',
  'GET /v1/images',
  'GET /v1/volumes',
  'POST /v1/pods/:namespace/:name/stop',
  'POST /v1/pods/:namespace/:name/start',
  'POST /v1/pods/:namespace/:name/restart',
  'POST /v1/pods/:namespace/:name/resize',
  'DELETE /v1/pods/:namespace/:name',
] as const;
const forwardedSessions = ['GET /v1/pods/:namespace/:name/exec'] as const;

/** Whether a path belongs to the API and not to the pages. */
export const isCall = (path: string): boolean => /^\/(?:v1\/|links\/|metrics$|readyz$)/.test(path);

/** Passes a call on to the admin socket, and its answer back, each at the reader's pace. Errors: `notFound`. */
export function forward(socketPath: string, request: IncomingMessage, response: ServerResponse): void {
  const path = forwardedPath(request, forwardedCalls);
  const type = request.headers['content-type'];
  const headers = { ...(type === undefined ? {} : { 'content-type': type }), ...lengthOf(request) };
  const outgoing = requestOf({ socketPath, method: request.method, path, headers, agent: false }, (answer) => {
    const { 'content-type': answerType = 'application/octet-stream' } = answer.headers;
    response.writeHead(answer.statusCode ?? 500, { ...safetyHeaders, 'content-type': answerType });
    response.flushHeaders();
    answer.on('error', () => response.destroy());
    answer.pipe(response);
  });
  outgoing.on('error', (cause) => {
    if (response.headersSent) response.destroy();
    else sendError(response, 503, unreachable(cause));
  });
  response.once('close', () => outgoing.destroy());
  request.pipe(outgoing);
}

/** Passes a WebSocket on as bytes. Errors: `notFound`. */
export function forwardSession(socketPath: string, request: IncomingMessage, page: Duplex, head: Buffer): void {
  const path = forwardedPath(request, forwardedSessions);
  const protocol = chosenProtocol(request);
  const { 'sec-websocket-key': key = '', 'sec-websocket-version': version = '' } = request.headers;
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-key': key,
    'sec-websocket-version': version,
  };
  const outgoing = requestOf({ socketPath, path, headers, agent: false });
  outgoing.once('upgrade', (answer, node, nodeHead) => {
    const accepted = answer.headers['sec-websocket-accept'] ?? '';
    const lines = ['HTTP/1.1 101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade'];
    lines.push(`Sec-WebSocket-Accept: ${accepted}`);
    if (protocol !== undefined) lines.push(`Sec-WebSocket-Protocol: ${protocol}`);
    page.write(`${lines.join('\r\n')}\r\n\r\n`);
    if (nodeHead.length > 0) page.write(nodeHead);
    if (head.length > 0) node.write(head);
    for (const [from, to] of [
      [node, page],
      [page, node],
    ] as const) {
      from.on('error', () => to.destroy());
      from.once('close', () => to.destroy());
      from.pipe(to);
    }
  });
  // Any other answer is an error of the node's; a page's WebSocket only learns that it failed.
  outgoing.once('response', () => page.destroy());
  outgoing.once('error', () => page.destroy());
  page.once('close', () => outgoing.destroy());
  outgoing.end();
}

export const sendError = (response: ServerResponse, status: number, { kind, message, fix }: PodvmError): void =>
  sendJson(response, status, { kind, message, ...(fix === undefined ? {} : { fix }) });

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { ...safetyHeaders, 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}

export const noSuchCall = (): PodvmError =>
  new PodvmError('notFound', 'Cannot answer: the dashboard has no such call', {
    fix: 'Use `podvm`, or the admin socket, for other calls.',
  });

const unreachable = (cause: Error): PodvmError =>
  new PodvmError('unavailable', 'Cannot reach the node: no podvm serves this state directory', {
    cause,
    fix: 'Run a pod, which starts a node, or `podvm dashboard` again.',
  });

/** The path and query of a call that the table has, without dot segments. Errors: `notFound`. */
function forwardedPath({ method = '', url = '/' }: IncomingMessage, table: readonly string[]): string {
  const parsed = URL.parse(`http://podvm${url}`);
  if (parsed === null) throw noSuchCall();
  const given = `${method} ${parsed.pathname}`.split('/');
  const isMet = (wanted: string, at: number) => (wanted.startsWith(':') ? given[at] !== '' : wanted === given[at]);
  const isKnown = table.some((call) => {
    const parts = call.split('/');
    return parts.length === given.length && parts.every(isMet);
  });
  if (!isKnown) throw noSuchCall();
  return `${parsed.pathname}${parsed.search}`;
}

/** The length of the body, so that the node does not get it in chunks. */
function lengthOf({ headers }: IncomingMessage): OutgoingHttpHeaders {
  const length = headers['content-length'];
  return length === undefined ? {} : { 'content-length': length };
}
