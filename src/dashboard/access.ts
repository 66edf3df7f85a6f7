import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { PodvmError } from '#base/errors.ts';

/** Subprotocol of the dashboard's WebSockets. */
const protocol = 'podvm.dev';
/** Prefix of the subprotocol by which a page sends its token: a WebSocket of a page has no other header. */
const tokenProtocol = 'podvm.dev.token.';

const openAgain = 'Open the address that `podvm dashboard` printed; it changes each time.';

/**
 * Refuses requests of other hosts and sites. DNS rebinding: a page of another site, whose name resolves to this address,
 * sends that name as its host. Errors: `denied`.
 */
export function checkHost({ headers: { host = '' } }: IncomingMessage): void {
  const { hostname } = URL.parse(`http://${host}`) ?? { hostname: '' };
  if (['127.0.0.1', 'localhost'].includes(hostname)) return;
  throw new PodvmError('denied', 'Cannot answer: the request names another host than this one', { fix: openAgain });
}

/**
 * Refuses calls that the dashboard's own pages did not make. A page has the token in its storage, which is that of one
 * origin; a cookie would be sent to every port of this host, also to servers of other users. Errors: `denied`.
 */
export function checkCall(request: IncomingMessage, token: string): void {
  checkHost(request);
  const { host = '', origin, 'sec-fetch-site': site } = request.headers;
  const isOwn = origin === undefined || origin === `http://${host}`;
  if (!isOwn || (site !== undefined && site !== 'same-origin' && site !== 'none')) {
    throw new PodvmError('denied', 'Cannot answer: the request comes from a page of another site', { fix: openAgain });
  }
  if (!isEqual(tokenOf(request), token)) {
    throw new PodvmError('denied', 'Cannot answer: the request has no valid token', { fix: openAgain });
  }
}

/** The subprotocol that the answer to a WebSocket must name, if the page asked for one. */
export const chosenProtocol = (request: IncomingMessage): string | undefined =>
  protocolsOf(request).find((offered) => offered === protocol);

function tokenOf(request: IncomingMessage): string {
  const { authorization = '' } = request.headers;
  if (authorization.startsWith('Bearer ')) return authorization.slice('Bearer '.length);
  const offered = protocolsOf(request).find((it) => it.startsWith(tokenProtocol)) ?? tokenProtocol;
  return offered.slice(tokenProtocol.length);
}

const protocolsOf = ({ headers }: IncomingMessage): readonly string[] =>
  (headers['sec-websocket-protocol'] ?? '').split(',').map((word) => word.trim());

/** Compares in a time that does not depend on the texts. */
const isEqual = (one: string, other: string): boolean => timingSafeEqual(digest(one), digest(other));
const digest = (text: string) => createHash('sha256').update(text).digest();
