import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  headerText,
  HeaderZip,
  numbers,
  rawControl,
  rawData,
  type RawFrame,
  RawFrames,
  synStreamStart,
} from '../streaming/spdy/frame-encoder.ts';
import { types } from '../streaming/spdy/frame.ts';

/** Limit of each wait in a test, in `ms`. */
const patienceMs = 60_000;

/** Resolves when `check` holds, evaluated at each `changed`; rejects after the time limit. */
export class Awaited {
  readonly #waits = new Set<() => void>();

  changed(): void {
    for (const look of this.#waits) look();
  }

  async until<T>(what: string, check: () => T | undefined | false): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const look = () => {
      const found = check();
      if (found !== undefined && found !== false) resolve(found);
    };
    const timer = setTimeout(() => reject(new Error(`not seen in ${patienceMs} ms: ${what}`)), patienceMs);
    this.#waits.add(look);
    look();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waits.delete(look);
    }
  }
}

/** Requests an upgrade. Returns the response and the socket. */
export async function askUpgrade(
  url: string,
  headers: Readonly<Record<string, string>>,
  method = 'POST',
): Promise<{ readonly socket: Socket; readonly status: number; readonly head: string; readonly rest: Buffer }> {
  const { hostname, port, pathname } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  const lines = Object.entries({ Host: `${hostname}:${port}`, ...headers }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  socket.write(`${method} ${pathname} HTTP/1.1\r\n${lines.join('')}\r\n`);
  let received = Buffer.alloc(0);
  while (!received.includes('\r\n\r\n')) {
    const [chunk] = (await Promise.race([
      once(socket, 'data'),
      once(socket, 'close').then(() => assert.fail(`closed before an answer: ${received.toString('latin1')}`)),
    ])) as [Buffer];
    received = Buffer.concat([received, chunk]);
  }
  socket.pause();
  const end = received.indexOf('\r\n\r\n');
  const head = received.toString('latin1', 0, end);
  return { socket, head, status: Number(head.split(' ')[1]), rest: received.subarray(end + 4) };
}

export const spdyUpgrade = (protocol: string) => ({
  Connection: 'Upgrade',
  Upgrade: 'SPDY/3.1',
  'X-Stream-Protocol-Version': protocol,
  'Content-Length': '0',
});

/**
 * A SPDY client that a test controls frame by frame. It records all frames; like moby/spdystream it never extends a
 * window.
 */
export class StreamingClient implements AsyncDisposable {
  readonly transport: Duplex;
  readonly frames: RawFrame[] = [];
  readonly awaited = new Awaited();
  isClosed = false;
  readonly #zip = new HeaderZip();
  readonly #reader = new RawFrames();
  #nextId = 1;

  constructor(transport: Duplex) {
    this.transport = transport;
    transport.on('data', (chunk: Buffer) => {
      this.frames.push(...this.#reader.read(chunk));
      this.awaited.changed();
    });
    transport.on('error', () => {});
    transport.once('close', () => {
      this.isClosed = true;
      this.awaited.changed();
    });
  }

  static async connect(url: string, protocol = 'v4.channel.k8s.io'): Promise<StreamingClient> {
    const { socket, status, head, rest } = await askUpgrade(url, spdyUpgrade(protocol));
    assert.equal(status, 101, head);
    assert.match(head, new RegExp(`X-Stream-Protocol-Version: ${protocol}`));
    if (rest.length > 0) socket.unshift(rest);
    const client = new StreamingClient(socket);
    socket.resume();
    return client;
  }

  send(bytes: Uint8Array): void {
    this.transport.write(bytes);
  }

  /** Opens a stream without waiting for the answer. */
  async synStream(headers: Readonly<Record<string, string>>, streamId = this.#nextId, fin = false): Promise<number> {
    this.#nextId = streamId + 2;
    const block = await this.#zip.zip(headerText(headers));
    this.send(rawControl(types.synStream, fin ? 1 : 0, Buffer.concat([synStreamStart(streamId), block])));
    return streamId;
  }

  async open(headers: Readonly<Record<string, string>>): Promise<number> {
    const streamId = await this.synStream(headers);
    await this.frame(types.synReply, streamId);
    return streamId;
  }

  data(streamId: number, text: string | Uint8Array, fin = false): void {
    this.send(rawData(streamId, typeof text === 'string' ? Buffer.from(text) : text, fin));
  }

  end(streamId: number): void {
    this.data(streamId, '', true);
  }

  reset(streamId: number, status = 5): void {
    this.send(rawControl(types.rstStream, 0, numbers(streamId, status)));
  }

  async frame(type: number, streamId: number): Promise<RawFrame> {
    return await this.awaited.until(`frame of type ${type} for stream ${streamId}`, () =>
      this.frames.find((frame) => frame.type === type && frame.streamId === streamId),
    );
  }

  /** Returns all data of a stream after the server has ended it. */
  async ended(streamId: number): Promise<string> {
    await this.awaited.until(`end of stream ${streamId}`, () => this.hasEnded(streamId));
    return this.received(streamId).toString();
  }

  hasEnded(streamId: number): boolean {
    return this.frames.some((frame) => frame.type === 0 && frame.streamId === streamId && frame.flags === 1);
  }

  received(streamId: number): Buffer {
    const data = this.frames.filter((frame) => frame.type === 0 && frame.streamId === streamId);
    return Buffer.concat(data.map(({ payload }) => payload));
  }

  async receives(streamId: number, text: string): Promise<void> {
    await this.awaited.until(`${JSON.stringify(text)} on stream ${streamId}`, () =>
      this.received(streamId).toString().includes(text),
    );
  }

  async closed(): Promise<void> {
    await this.awaited.until('the end of the connection', () => this.isClosed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.transport.destroy();
    await this.closed();
  }
}
