import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { PodvmError } from '#base/errors.ts';
import { deadlineAfter } from '#host/clock.ts';
import { request as startRequest } from '#host/socket/node-http.ts';
import type { SessionParts } from './session-parts.ts';

/** A stream of another runtime's server. */
export interface RelayRequest {
  /** URL on which that server serves the stream. */
  readonly url: URL;
}

/** The other server's answer to an upgrade. */
export interface Upgraded {
  readonly socket: Duplex;
  /** Lines of its head. */
  readonly head: string;
}

/** Headers of an upgrade to SPDY or WebSocket. */
const upgradeHeaders = [
  'connection',
  'upgrade',
  'x-stream-protocol-version',
  'sec-websocket-protocol',
  'sec-websocket-version',
  'sec-websocket-key',
];
const connectMs = 10_000;

/** Returns the headers of a client's upgrade for the other server. */
export function headersOf({ headers }: IncomingMessage): Record<string, string> {
  const own = upgradeHeaders.map((name) => [name, [headers[name] ?? []].flat().join(', ')] as const);
  return Object.fromEntries(own.filter(([, value]) => value !== ''));
}

/** Asks the other server for an upgrade. Errors: `unavailable`. */
export async function upgradeAt(
  { url }: RelayRequest,
  headers: Readonly<Record<string, string>>,
  { clock, closing }: Pick<SessionParts, 'clock' | 'closing'>,
): Promise<Upgraded> {
  const failing = `Cannot open the stream of the delegate at ${url.host}`;
  using deadline = deadlineAfter(clock, connectMs, closing);
  const asked = startRequest(url, { headers, agent: false });
  const end = () => asked.destroy(new PodvmError('unavailable', `${failing}: it does not answer`));
  deadline.signal.addEventListener('abort', end, { once: true });
  if (deadline.signal.aborted) end();
  asked.end();
  const answered = Promise.withResolvers<Upgraded>();
  asked.once('response', ({ statusCode }) => {
    answered.reject(new PodvmError('unavailable', `${failing}: it answers with ${statusCode}`));
    asked.destroy();
  });
  asked.once('upgrade', (response, socket, head) => {
    socket.on('error', () => socket.destroy());
    if (head.length > 0) socket.unshift(head);
    const { rawHeaders } = response;
    const lines = rawHeaders.flatMap((name, at) => (at % 2 === 0 ? [`${name}: ${rawHeaders[at + 1] ?? ''}`] : []));
    answered.resolve({ socket, head: ['HTTP/1.1 101 Switching Protocols', ...lines, '', ''].join('\r\n') });
  });
  asked.once('error', (cause) => answered.reject(new PodvmError('unavailable', failing, { cause })));
  try {
    return await answered.promise;
  } finally {
    deadline.signal.removeEventListener('abort', end);
  }
}

/** Carries bytes between a client and the other server, until either is gone, which ends both. */
export async function relay(client: Duplex, server: Duplex, closing: AbortSignal): Promise<void> {
  const end = () => {
    client.destroy();
    server.destroy();
  };
  closing.addEventListener('abort', end, { once: true });
  if (closing.aborted) end();
  try {
    await Promise.race([pipeline(client, server), pipeline(server, client)]);
  } catch {
    // A side that breaks off is an end like any other.
  } finally {
    closing.removeEventListener('abort', end);
    end();
    for (const each of [client, server]) if (!each.closed) await once(each, 'close');
  }
}
