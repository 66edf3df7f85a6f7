import { PodvmError } from '#base/errors.ts';

/**
 * Frames of ttrpc, containerd's RPC over unix sockets (github.com/containerd/ttrpc): a header of ten bytes,
 * then the payload. Only unary calls are used here: a request and its response.
 */
export const headerBytes = 10;
/** The protocol's own limit. */
export const maxPayloadBytes = 4 * 1024 * 1024;

export const frameTypes = { request: 1, response: 2, data: 3 } as const;

export interface Frame {
  readonly streamId: number;
  readonly type: number;
  readonly payload: Buffer;
}

export function encodeFrame({ streamId, type, payload }: Omit<Frame, 'payload'> & { payload: Uint8Array }): Buffer {
  if (payload.length > maxPayloadBytes) {
    throw new PodvmError('exhausted', `Cannot send a message of ${payload.length} bytes: at most ${maxPayloadBytes}`);
  }
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32BE(payload.length, 0);
  header.writeUInt32BE(streamId, 4);
  header.writeUInt8(type, 8);
  return Buffer.concat([header, payload]);
}

/**
 * Splits a byte stream into frames. Holds at most one frame: its header says how long it is, and one that is too long is
 * refused before its payload is read.
 */
export class FrameReader {
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** Returns the frames that these bytes complete. Errors: `corrupt` for a frame that is too long. */
  read(chunk: Buffer): readonly Frame[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const frames: Frame[] = [];
    while (this.#bytes >= headerBytes) {
      const header = this.#peek(headerBytes);
      const length = header.readUInt32BE(0);
      if (length > maxPayloadBytes) {
        throw new PodvmError('corrupt', `Cannot read a ttrpc frame: ${length} bytes, at most ${maxPayloadBytes}`);
      }
      if (this.#bytes < headerBytes + length) break;
      const whole = this.#peek(this.#bytes);
      this.#chunks = [whole.subarray(headerBytes + length)];
      this.#bytes -= headerBytes + length;
      const payload = whole.subarray(headerBytes, headerBytes + length);
      frames.push({ streamId: header.readUInt32BE(4), type: header.readUInt8(8), payload });
    }
    return frames;
  }

  /** Joins chunks until the first one has that many bytes. */
  #peek(bytes: number): Buffer {
    const [first] = this.#chunks;
    if (first !== undefined && first.length >= bytes) return first;
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }
}
