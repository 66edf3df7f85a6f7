import type { Duplex } from 'node:stream';
import { forwardPort } from './forward-port.ts';
import type { SessionParts } from './session-parts.ts';
import { SessionWatch } from './session-watch.ts';
import { streamTypeHeader } from './spdy-channels.ts';
import type { Headers } from './spdy/header-block.ts';
import { SpdySession } from './spdy/spdy-session.ts';
import type { SpdyStream } from './spdy/spdy-stream.ts';
import type { PortForwardStreamRequest } from './streaming.ts';

export const portForwardProtocol = 'portforward.k8s.io';

/** The streams of one TCP connection. */
interface Pair {
  error?: SpdyStream;
  data?: SpdyStream;
  readonly cancelWait: () => void;
}

/**
 * Serves `portforward.k8s.io`: any number of connections to ports of the pod. The client opens each as a pair of
 * streams, one for its bytes and one for errors. Resolves when the client is gone.
 */
export async function servePortForward(
  transport: Duplex,
  { target }: PortForwardStreamRequest,
  parts: SessionParts,
): Promise<void> {
  const pairs = new Map<string, Pair>();
  const forwards = new Set<Promise<void>>();
  const session = new SpdySession(transport, {
    clock: parts.clock,
    onActivity: () => watch.touch(),
    accepts: (headers) => partOf(headers) !== undefined && portOf(headers) !== undefined,
    onStream: (stream) => {
      const part = partOf(stream.headers);
      const name = pairName(stream);
      const pair = pairs.get(name) ?? { cancelWait: parts.clock.after(parts.openMs, () => abandon(pairs, name)) };
      if (part === undefined || pair[part] !== undefined) {
        stream.destroy();
        return;
      }
      pairs.set(name, pair);
      pair[part] = stream;
      stream.once('close', () => {
        if (pairs.get(name) === pair) abandon(pairs, name);
      });
      const { data, error } = pair;
      if (data === undefined || error === undefined) return;
      pairs.delete(name);
      pair.cancelWait();
      error.resume();
      const forward = forwardPort({ port: portOf(data.headers) ?? 0, data, error, target }, parts);
      forwards.add(forward);
      void forward.finally(() => forwards.delete(forward));
    },
  });
  using watch = new SessionWatch(parts, () => session.destroy());
  void session.closed.then(() => watch.gone());
  await session.closed;
  for (const name of [...pairs.keys()]) abandon(pairs, name);
  await Promise.all(forwards);
  if (session.failure !== undefined)
    parts.log.warn('a port-forward client violated the protocol', { err: session.failure.message });
}

/** Drops a pair whose other stream did not arrive, or whose stream has ended. */
function abandon(pairs: Map<string, Pair>, name: string): void {
  const pair = pairs.get(name);
  pairs.delete(name);
  pair?.cancelWait();
  pair?.data?.destroy();
  pair?.error?.destroy();
}

function partOf(headers: Headers): 'data' | 'error' | undefined {
  const type = headers.get(streamTypeHeader);
  return type === 'data' || type === 'error' ? type : undefined;
}

function portOf(headers: Headers): number | undefined {
  const text = headers.get('port') ?? '';
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65_535 ? port : undefined;
}

/**
 * Returns the pair's name. Clients without request ids open the error stream and then, as the next one, the data
 * stream.
 */
function pairName({ id, headers }: SpdyStream): string {
  return headers.get('requestid') ?? `stream ${partOf(headers) === 'data' ? id - 2 : id}`;
}
