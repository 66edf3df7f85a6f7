import { constants, createDeflate, createInflate, type Deflate, type Inflate } from 'node:zlib';
import { headerDictionary } from './dictionary.ts';

/*
 * The client's side of the framer, for tests. Makes and reads frames with zlib's own streams, and shares only the
 * dictionary with `frame.ts` and `header-block.ts`.
 */

/** A frame as it is on the wire; data frames have type 0. */
export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export function rawControl(type: number, flags: number, payload: Uint8Array, version = 3): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32BE(0x8000_0000 + version * 0x1_0000 + type, 0);
  header.writeUInt32BE(flags * 0x100_0000 + payload.length, 4);
  return Buffer.concat([header, payload]);
}

export function rawData(streamId: number, bytes: Uint8Array, fin: boolean): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32BE(streamId, 0);
  header.writeUInt32BE((fin ? 0x100_0000 : 0) + bytes.length, 4);
  return Buffer.concat([header, bytes]);
}

export function numbers(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

/** Returns SYN_STREAM's fields before its headers: number, associated stream, priority and slot. */
export function synStreamStart(streamId: number): Buffer {
  return Buffer.concat([numbers(streamId, 0), Buffer.alloc(2)]);
}

export function headerText(headers: Readonly<Record<string, string>>): Buffer {
  const words = Object.entries(headers).flat();
  return Buffer.concat([
    numbers(words.length / 2),
    ...words.flatMap((word) => [numbers(Buffer.byteLength(word)), Buffer.from(word)]),
  ]);
}

/** Header compression of one direction, as a client does it. */
export class HeaderZip {
  readonly #deflate: Deflate;

  constructor(level = 9) {
    this.#deflate = createDeflate({ level, dictionary: headerDictionary });
  }

  async zip(text: Buffer): Promise<Buffer> {
    return await through(this.#deflate, text);
  }
}

export class HeaderUnzip {
  readonly #inflate: Inflate = createInflate({ dictionary: headerDictionary });

  async unzip(block: Buffer): Promise<Buffer> {
    return await through(this.#inflate, block);
  }
}

async function through(stream: Deflate | Inflate, bytes: Buffer): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const collect = (piece: Buffer) => pieces.push(piece);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stream.on('data', collect).on('error', reject);
  stream.write(bytes);
  stream.flush(constants.Z_SYNC_FLUSH, () => resolve());
  try {
    await promise;
  } finally {
    stream.off('data', collect).off('error', reject);
  }
  return Buffer.concat(pieces);
}

/** Splits pieces of any size into whole frames; keeps incomplete ones. */
export class RawFrames {
  #kept: Buffer = Buffer.alloc(0);

  *read(chunk: Uint8Array): Generator<RawFrame> {
    this.#kept = Buffer.concat([this.#kept, chunk]);
    while (this.#kept.length >= 8) {
      const length = this.#kept.readUIntBE(5, 3);
      if (this.#kept.length < 8 + length) return;
      const first = this.#kept.readUInt32BE(0);
      const flags = this.#kept.readUInt8(4);
      const payload = this.#kept.subarray(8, 8 + length);
      this.#kept = this.#kept.subarray(8 + length);
      if (first < 0x8000_0000) yield { type: 0, flags, streamId: first, payload };
      else {
        const streamId = payload.length >= 4 ? payload.readUInt32BE(0) : 0;
        yield { type: first & 0xffff, flags, streamId, payload };
      }
    }
  }
}
