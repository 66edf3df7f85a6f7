import { Readable, Writable } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { ProcessChannels } from './process-session.ts';
import type { SessionParts } from './session-parts.ts';
import { SessionWatch } from './session-watch.ts';
import type { StreamChoice } from './streaming.ts';

export const processProtocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io'] as const;
export type ProcessProtocol = (typeof processProtocols)[number];

/** Channel number, the first byte of a message. */
const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const;

/** Limit of received bytes that were not read yet; above it, reading from the client pauses. */
const maxQueuedBytes = 256 * 1024;
/** Interval of pings, in `ms`. They detect a client that is gone while nothing is read from it. */
const pingMs = 15_000;
const closeMs = 5_000;
const normalClosure = 1000;

/**
 * Serves `v4.channel.k8s.io` and `v5.channel.k8s.io` over WebSocket: a message is a piece of one stream, whose number
 * is its first byte. v5 adds a message that closes a stream, such as standard input. Resolves when the client is gone.
 */
export async function serveWebSocketChannels(
  socket: WebSocket,
  protocol: ProcessProtocol,
  choice: StreamChoice,
  parts: SessionParts,
  serve: (channels: ProcessChannels) => Promise<void>,
): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => resolve());
  });
  using watch = new SessionWatch(parts, () => socket.terminate());
  using _ping = pinging(socket, parts);
  const stdin = choice.stdin ? inputOf(socket) : undefined;
  const resize = choice.tty ? inputOf(socket) : undefined;
  const output = (number: number) => outputOf(socket, number, () => watch.touch());
  const [stdout, stderr] = (['stdout', 'stderr'] as const).map((name) =>
    choice[name] ? output(channel[name]) : undefined,
  );
  const error = output(channel.error);
  socket.on('message', (data) => {
    const message = bytesOf(data);
    const body = message.subarray(1);
    if (body.length > 0) watch.touch();
    if (message[0] === channel.stdin && body.length > 0) push(socket, stdin, body);
    if (message[0] === channel.resize) push(socket, resize, body);
    if (message[0] === channel.close && protocol === 'v5.channel.k8s.io' && body[0] === channel.stdin) finish(stdin);
  });
  void closed.then(() => {
    watch.gone();
    for (const stream of [stdin, resize, stdout, stderr, error]) stream?.destroy();
  });
  // An empty message confirms the connection, as the kubelet's own server does.
  socket.send(Buffer.of(choice.stdout ? channel.stdout : choice.stderr ? channel.stderr : channel.error));
  await serve({
    ...(stdin === undefined ? {} : { stdin }),
    ...(stdout === undefined ? {} : { stdout }),
    ...(stderr === undefined ? {} : { stderr }),
    ...(resize === undefined ? {} : { resize }),
    gone: watch.signal,
    finish: async (status) => {
      socket.resume(); // a full input would otherwise block the client's close frame
      stdin?.destroy();
      await new Promise<void>((resolve) => {
        if (error.destroyed) resolve();
        error.once('close', resolve);
        error.end(JSON.stringify(status));
      });
      socket.close(normalClosure);
      const cancel = parts.clock.after(closeMs, () => socket.terminate());
      await closed;
      cancel();
    },
  });
  await closed;
}

/** Makes a stream of the socket's messages. The socket pauses while it is full. */
function inputOf(socket: WebSocket): Readable {
  const input = new Readable({ highWaterMark: maxQueuedBytes, read: () => socket.resume() });
  input.on('error', () => {});
  input.once('close', () => socket.resume());
  return input;
}

function push(socket: WebSocket, input: Readable | undefined, bytes: Buffer): void {
  if (input === undefined || input.destroyed || input.readableEnded) return;
  if (!input.push(bytes)) socket.pause();
}

function finish(input: Readable | undefined): void {
  if (input !== undefined && !input.destroyed) input.push(null);
}

function outputOf(socket: WebSocket, number: number, onWrite: () => void): Writable {
  const output = new Writable({
    write(chunk: Buffer, _encoding, done) {
      onWrite();
      socket.send(Buffer.concat([Buffer.of(number), chunk]), () => done()); // `close` reports a client that is gone
    },
  });
  return output.on('error', () => {});
}

function pinging(socket: WebSocket, { clock }: SessionParts): Disposable {
  let cancel = () => {};
  const next = () => {
    cancel = clock.after(pingMs, () => {
      if (socket.readyState === socket.OPEN) socket.ping();
      next();
    });
  };
  next();
  return { [Symbol.dispose]: () => cancel() };
}

function bytesOf(data: RawData): Buffer {
  if (data instanceof ArrayBuffer) return Buffer.from(data);
  return Array.isArray(data) ? Buffer.concat(data) : data;
}
