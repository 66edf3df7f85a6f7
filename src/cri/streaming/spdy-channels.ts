import { type Duplex, PassThrough, type Readable, type Writable } from 'node:stream';
import type { ProcessChannels } from './process-session.ts';
import { type StatusForm, statusText } from './remote-status.ts';
import type { SessionParts } from './session-parts.ts';
import { SessionWatch } from './session-watch.ts';
import { SpdySession } from './spdy/spdy-session.ts';
import type { SpdyStream } from './spdy/spdy-stream.ts';
import type { StreamChoice } from './streaming.ts';

const roles = ['error', 'stdin', 'stdout', 'stderr', 'resize'] as const;
type Role = (typeof roles)[number];

/** Header with the role of a stream. */
export const streamTypeHeader = 'streamtype';

/** Protocols of exec and attach by name. Version 2 and older have no sizes of terminals; the form of a status differs. */
export const spdyProcessProtocols: ReadonlyMap<string, StatusForm> = new Map<string, StatusForm>([
  ['v4.channel.k8s.io', 'json'],
  ['v3.channel.k8s.io', 'message'],
  ['v2.channel.k8s.io', 'message'],
  ['channel.k8s.io', 'message'],
]);

/**
 * Serves exec and attach over SPDY: the client opens one stream for each role, and `serve` begins when all
 * requested ones are open (`resize` may come later). Resolves when the client and the session are gone.
 */
export async function serveSpdyChannels(
  transport: Duplex,
  form: StatusForm,
  choice: StreamChoice,
  parts: SessionParts,
  serve: (channels: ProcessChannels) => Promise<void>,
): Promise<void> {
  const streams = new Map<Role, SpdyStream>();
  const awaited = new Set<Role>(['error', ...(['stdin', 'stdout', 'stderr'] as const).filter((role) => choice[role])]);
  const complete = Promise.withResolvers<void>();
  const resize = choice.tty ? new PassThrough() : undefined;
  const session = new SpdySession(transport, {
    clock: parts.clock,
    onActivity: () => watch.touch(),
    accepts: (headers) => {
      const role = roleOf(headers.get(streamTypeHeader));
      return role !== undefined && !streams.has(role);
    },
    onStream: (stream) => {
      const role = roleOf(stream.headers.get(streamTypeHeader));
      if (role === undefined) return;
      streams.set(role, stream);
      if (role === 'resize' && resize !== undefined) stream.pipe(resize);
      else if (role !== 'stdin' || !choice.stdin) stream.resume(); // discards input on output streams
      awaited.delete(role);
      if (awaited.size === 0) complete.resolve();
    },
  });
  using watch = new SessionWatch(parts, () => session.destroy());
  void session.closed.then(() => watch.gone());
  const cancel = parts.clock.after(parts.openMs, () => {
    parts.log.warn('a client did not open its streams in time', { missing: [...awaited].join(',') });
    session.destroy();
  });
  await Promise.race([complete.promise, session.closed]);
  cancel();
  if (awaited.size === 0) {
    await serve({
      ...chosen(choice, streams),
      ...(resize === undefined ? {} : { resize }),
      gone: watch.signal,
      finish: async (status) => {
        await Promise.all([ended(streams.get('stdout')), ended(streams.get('stderr'))]);
        await ended(streams.get('error'), statusText(status, form));
        await session.close();
      },
    });
  }
  await session.closed;
  resize?.destroy();
  if (session.failure !== undefined)
    parts.log.warn('a streaming client violated the protocol', { err: session.failure.message });
}

function roleOf(text: string | undefined): Role | undefined {
  return roles.find((role) => role === text);
}

function chosen(
  choice: StreamChoice,
  streams: ReadonlyMap<Role, SpdyStream>,
): { stdin?: Readable; stdout?: Writable; stderr?: Writable } {
  const [stdin, stdout, stderr] = (['stdin', 'stdout', 'stderr'] as const).map((role) =>
    choice[role] ? streams.get(role) : undefined,
  );
  return {
    ...(stdin === undefined ? {} : { stdin }),
    ...(stdout === undefined ? {} : { stdout }),
    ...(stderr === undefined ? {} : { stderr }),
  };
}

/** Resolves when all written bytes, including the last words, were accepted, or the stream is gone. */
async function ended(stream: Writable | undefined, lastWords = ''): Promise<void> {
  if (stream === undefined || stream.destroyed || stream.writableEnded) return;
  await new Promise<void>((resolve) => {
    stream.once('close', resolve);
    stream.once('finish', resolve);
    stream.end(lastWords);
  });
}
