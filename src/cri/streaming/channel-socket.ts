import { Duplex, Readable, Writable } from 'node:stream';
import type { WebSocket } from 'ws';
import { messageBytes } from '#host/socket/message-bytes.ts';
import type { SessionParts } from './session-parts.ts';
import { SessionWatch } from './session-watch.ts';

/** Form of a message: bytes, or text in base64. Its first byte is the channel, a number or a character from `0` on. */
export type ChannelEncoding = 'binary' | 'base64';

/** Limit of received bytes that were not read yet; above it, reading from the client pauses. */
const maxQueuedBytes = 256 * 1024;
/** Interval of pings, in `ms`. They detect a client that is gone while nothing is read from it. */
const pingMs = 15_000;
const closeMs = 5_000;
const normalClosure = 1000;
/** First byte of a message that ends the channel in its second byte, in protocols that have it. */
const endOfChannel = 255;
const firstDigit = 0x30;

/**
 * A WebSocket whose messages are pieces of numbered channels: `channel.k8s.io` and its versions. Messages on channels
 * without a stream, and those that are not base64 where they should be, are ignored.
 */
export class ChannelSocket implements Disposable {
  /** Resolves when the client is gone. */
  readonly closed: Promise<void>;
  readonly #socket: WebSocket;
  readonly #encoding: ChannelEncoding;
  readonly #parts: SessionParts;
  readonly #watch: SessionWatch;
  readonly #inputs = new Map<number, Readable>();
  readonly #streams: (Readable | Writable)[] = [];
  #cancelPing = () => {};

  constructor(
    socket: WebSocket,
    { encoding, hasEnds = false }: { readonly encoding: ChannelEncoding; readonly hasEnds?: boolean },
    parts: SessionParts,
  ) {
    this.#socket = socket;
    this.#encoding = encoding;
    this.#parts = parts;
    this.#watch = new SessionWatch(parts, () => socket.terminate());
    this.closed = new Promise<void>((resolve) => {
      socket.once('close', () => {
        this.#watch.gone();
        for (const stream of this.#streams) stream.destroy();
        resolve();
      });
    });
    socket.on('message', (data) => this.#take(messageBytes(data), hasEnds));
    this.#pingLater();
  }

  /** Aborts when the client is gone, or has to leave. */
  get gone(): AbortSignal {
    return this.#watch.signal;
  }

  /** Makes a stream of the channel's bytes. The client is not read while it is full. */
  input(channel: number): Readable {
    return this.#reads(channel, new Readable({ highWaterMark: maxQueuedBytes, read: () => this.#socket.resume() }));
  }

  /** Makes a stream to the channel. Its end is not sent, since no protocol has a message for that. */
  output(channel: number): Writable {
    return this.#owns(new Writable({ write: (chunk: Buffer, _encoding, done) => this.#write(channel, chunk, done) }));
  }

  /** Makes a stream of both directions. The end of its output also ends its input: the client cannot end it. */
  both(channel: number): Duplex {
    const stream: Duplex = new Duplex({
      readableHighWaterMark: maxQueuedBytes,
      read: () => this.#socket.resume(),
      write: (chunk: Buffer, _encoding, done) => this.#write(channel, chunk, done),
      final: (done) => {
        stream.push(null);
        done();
      },
    });
    return this.#reads(channel, stream);
  }

  /** Sends one message. */
  send(channel: number, bytes: Uint8Array, done = () => {}): void {
    const message =
      this.#encoding === 'binary'
        ? Buffer.concat([Buffer.of(channel), bytes])
        : String.fromCodePoint(firstDigit + channel) + Buffer.from(bytes).toString('base64');
    this.#socket.send(message, done); // `close` reports a client that is gone
  }

  /** Closes the connection normally, and waits until the client is gone. */
  async close(): Promise<void> {
    this.#socket.resume(); // a full input would otherwise block the client's close frame
    this.#socket.close(normalClosure);
    const cancel = this.#parts.clock.after(closeMs, () => this.#socket.terminate());
    await this.closed;
    cancel();
  }

  [Symbol.dispose](): void {
    this.#cancelPing();
    this.#watch[Symbol.dispose]();
  }

  #owns<S extends Readable | Writable>(stream: S): S {
    this.#streams.push(stream);
    stream.on('error', () => {});
    return stream;
  }

  #reads<S extends Readable>(channel: number, stream: S): S {
    this.#inputs.set(channel, this.#owns(stream));
    stream.once('close', () => this.#socket.resume());
    return stream;
  }

  #write(channel: number, chunk: Buffer, done: () => void): void {
    this.#watch.touch();
    this.send(channel, chunk, () => done());
  }

  #take(message: Buffer, hasEnds: boolean): void {
    const [first, second] = message;
    if (first === undefined || message.length === 1) return;
    this.#watch.touch();
    if (hasEnds && first === endOfChannel) {
      const ended = this.#inputs.get(second ?? -1);
      if (ended !== undefined && !ended.destroyed) ended.push(null);
      return;
    }
    const body = message.subarray(1);
    const bytes = this.#encoding === 'binary' ? body : decode(body);
    const input = this.#inputs.get(this.#encoding === 'binary' ? first : first - firstDigit);
    if (bytes === undefined || input === undefined || input.destroyed || input.readableEnded) return;
    if (!input.push(bytes)) this.#socket.pause();
  }

  #pingLater(): void {
    this.#cancelPing = this.#parts.clock.after(pingMs, () => {
      if (this.#socket.readyState === this.#socket.OPEN) this.#socket.ping();
      this.#pingLater();
    });
  }
}

/** Decodes base64 with padding; undefined for anything else, which `Buffer.from` would accept in part. */
function decode(body: Buffer): Buffer | undefined {
  const text = body.toString('latin1');
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : undefined;
}
