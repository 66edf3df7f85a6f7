import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { askUpgrade } from './streaming-client.ts';

const key = 'dGhlIHNhbXBsZSBub25jZQ==';
const binary = 0x82;
const close = 0x88;

/**
 * A client's end of bytes in WebSocket messages, framed by hand (RFC 6455, section 5): `ws` supports no protocol with a
 * slash in its name. Each write is a message.
 */
export class ClientTunnel extends Duplex {
  readonly #socket: Socket;
  #kept: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.once('close', () => this.destroy());
  }

  static async connect(url: string, protocol: string): Promise<ClientTunnel> {
    const headers = {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': key,
      'Sec-WebSocket-Protocol': protocol,
    };
    const { socket, status, head, rest } = await askUpgrade(url, headers, 'GET');
    assert.equal(status, 101, head);
    assert.ok(head.split('\r\n').includes(`Sec-WebSocket-Protocol: ${protocol}`), head);
    const answer = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    assert.ok(head.includes(answer), head);
    if (rest.length > 0) socket.unshift(rest);
    return new ClientTunnel(socket);
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(masked(binary, chunk), () => done());
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.write(masked(close, Buffer.of(0x03, 0xe8)), () => done()); // 1000: normal closure
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  #take(chunk: Buffer): void {
    this.#kept = Buffer.concat([this.#kept, chunk]);
    for (;;) {
      if (this.#kept.length < 2) return;
      const short = this.#kept.readUInt8(1);
      const start = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (this.#kept.length < start) return;
      const length =
        short < 126 ? short : short === 126 ? this.#kept.readUInt16BE(2) : Number(this.#kept.readBigUInt64BE(2));
      if (this.#kept.length < start + length) return;
      const opcode = this.#kept.readUInt8(0);
      const payload = this.#kept.subarray(start, start + length);
      this.#kept = this.#kept.subarray(start + length);
      if (opcode === binary) this.push(payload);
      else if (opcode === close) this.push(null);
    }
  }
}

function masked(opcode: number, payload: Buffer): Buffer {
  const mask = Buffer.of(1, 2, 3, 4);
  const header = Buffer.alloc(payload.length < 126 ? 2 : payload.length < 0x1_0000 ? 4 : 10);
  header.writeUInt8(opcode, 0);
  if (header.length === 2) header.writeUInt8(0x80 + payload.length, 1);
  else if (header.length === 4) {
    header.writeUInt8(0x80 + 126, 1);
    header.writeUInt16BE(payload.length, 2);
  } else {
    header.writeUInt8(0x80 + 127, 1);
    header.writeBigUInt64BE(BigInt(payload.length), 2);
  }
  return Buffer.concat([header, mask, payload.map((byte, at) => byte ^ (mask[at % 4] ?? 0))]);
}
