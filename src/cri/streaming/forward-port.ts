import type { Duplex, Writable } from 'node:stream';
import { messageOf } from '#base/errors.ts';
import { deadlineAfter } from '#host/clock.ts';
import type { SessionParts } from './session-parts.ts';
import type { PortForwardStreamRequest } from './streaming.ts';

const dialTimeoutMs = 30_000;

export interface Forward {
  readonly port: number;
  /** The client's bytes. */
  readonly data: Duplex;
  /** Receives the reason of a failure as text. */
  readonly error: Writable;
  readonly target: PortForwardStreamRequest['target'];
}

/** Forwards one connection. Never rejects; both streams and the connection are gone afterwards. */
export async function forwardPort(
  { port, data, error, target }: Forward,
  { clock, log }: Pick<SessionParts, 'clock' | 'log'>,
): Promise<void> {
  const left = new AbortController();
  data.once('close', () => left.abort());
  try {
    using dialling = deadlineAfter(clock, dialTimeoutMs, left.signal);
    const connection = await target.dial(port, undefined, dialling.signal);
    await join(data, connection);
    error.end();
  } catch (failure) {
    if (!left.signal.aborted) log.debug('port-forward failed', { port });
    // The client shows this to its user, and resets the pair after reading it.
    error.end(`Cannot forward port ${port}: ${messageOf(failure)}`);
    data.destroy();
  }
  await closed(error);
}

/** Carries bytes in both directions, each until its own end. Errors: those of the connection. */
async function join(stream: Duplex, connection: Duplex): Promise<void> {
  const over = Promise.withResolvers<void>();
  connection.once('error', over.reject);
  stream.once('close', over.resolve);
  stream.pipe(connection).pipe(stream);
  if (stream.destroyed) over.resolve();
  try {
    await over.promise;
  } finally {
    stream.unpipe(connection);
    connection.on('error', () => {}); // pending operations when the client disconnects
    connection.destroy();
    stream.destroy();
  }
}

async function closed(stream: Writable): Promise<void> {
  if (!stream.closed) await new Promise<void>((resolve) => void stream.once('close', () => resolve()));
}
