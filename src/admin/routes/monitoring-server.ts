import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { PodvmError } from '#base/errors.ts';
import { outliveAcceptErrors } from '#host/socket/accept-errors.ts';
import { createServer } from '#host/socket/node-http.ts';
import { sendError } from '../http.ts';
import { monitoringRoutes, type MonitoringParts } from './monitoring-routes.ts';
import { answerBy } from '../routes.ts';

export interface MonitoringAddress {
  readonly address: string;
  readonly port: number;
  /** `local`: the address is the node's loopback. */
  readonly clients: 'local' | 'any';
}

/** Enough for a few scrapers and browsers. */
const maxConnections = 64;
const maxHeaderBytes = 16 * 1024;
/** Time for a request to arrive whole, in `ms`. */
const requestTimeoutMs = 10_000;

/** Serves monitoring over TCP, and nothing else. Errors: `busy` when the port is taken, `unavailable`. */
export async function serveMonitoring(
  { address, port, clients }: MonitoringAddress,
  parts: MonitoringParts,
): Promise<AsyncDisposable & { readonly port: number }> {
  const answer = answerBy(monitoringRoutes(parts));
  const limits = { maxHeaderSize: maxHeaderBytes, requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs };
  const server = createServer(limits, (request, response) => {
    if (clients === 'any' || namesAddress(request)) answer(request, response);
    else sendError(response, otherHost());
  });
  server.maxConnections = maxConnections;
  server.listen(port, address);
  try {
    await once(server, 'listening');
  } catch (cause) {
    const isTaken = (cause as NodeJS.ErrnoException).code === 'EADDRINUSE';
    throw new PodvmError(isTaken ? 'busy' : 'unavailable', `Cannot serve metrics on ${address} port ${port}`, {
      cause,
      fix: 'Choose another metricsAddress, or leave it out: the admin socket serves metrics, too.',
    });
  }
  outliveAcceptErrors(server);
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

const otherHost = () =>
  new PodvmError('denied', 'Cannot answer: the request names another host than this one', {
    fix: 'Ask for an address of loopback, such as http://127.0.0.1:10011/metrics, or set metricsClients to any.',
  });

/** Refuses DNS rebinding: a page of another site, whose name resolves to this address, sends that name as its host. */
function namesAddress({ headers: { host = '' } }: IncomingMessage): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return name === 'localhost' || isIP(name) !== 0;
}
