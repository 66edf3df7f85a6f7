import { limits } from './limits.ts';

/**
 * Frames: how messages and streams share the one byte channel. A frame is a header of 20 bytes, little-endian, and
 * `length` bytes of payload:
 *
 *   0 magic u32 | 4 epoch u32 | 8 stream u32 | 12 kind u8 | 13 length u24 | 16 check u32
 *
 * The *epoch* is a random number of the host, new with every connection: it identifies bytes of an earlier connection
 * in the channel. The check covers the 16 bytes before it, so that a parser that lost its place (the host stopped in
 * the middle of a frame) finds the next header by searching for the magic, and never accepts garbage.
 */
export const headerBytes = 20;
const magic = 0x314d5650; // "PVM1"
const magicFirstByte = 0x50;

export const frameKinds = {
  /** Host to agent, JSON `Hello`: the first frame of an epoch, possibly repeated. */
  hello: 1,
  /** JSON, stream 0. */
  message: 2,
  /** Bytes of a stream. */
  data: 3,
  /** The sender has no more bytes for the stream. */
  end: 4,
  /** The sender forgets the stream, in both directions. */
  reset: 5,
  /** u32: the receiver may send this many more bytes on the stream. */
  credit: 6,
  /** Host to agent, stream 0: JSON of a message that is larger than one frame; the next `message` holds the rest. */
  part: 7,
} as const;
export type FrameKind = (typeof frameKinds)[keyof typeof frameKinds];

export interface FrameHeader {
  readonly epoch: number;
  readonly stream: number;
  readonly kind: FrameKind;
  /** Payload in `bytes`. */
  readonly length: number;
}

/** Maximum payload of a frame of that kind, in `bytes`; undefined for an unknown kind. */
function maxLength(kind: number, maxDataBytes: number): number | undefined {
  switch (kind) {
    case frameKinds.hello:
    case frameKinds.message:
    case frameKinds.part:
      return limits.maxMessageBytes;
    case frameKinds.data:
      return maxDataBytes;
    case frameKinds.credit:
      return 4;
    case frameKinds.end:
    case frameKinds.reset:
      return 0;
    default:
      return undefined;
  }
}

/** Writes the header at `offset`; the payload follows directly. */
export function writeHeader(into: Uint8Array, offset: number, header: FrameHeader): void {
  const view = new DataView(into.buffer, into.byteOffset + offset, headerBytes);
  view.setUint32(0, magic, true);
  view.setUint32(4, header.epoch, true);
  view.setUint32(8, header.stream, true);
  view.setUint32(12, (header.kind | (header.length << 8)) >>> 0, true);
  view.setUint32(16, checkOf(view), true);
}

/** Encodes a whole frame. */
export function encodeFrame(epoch: number, stream: number, kind: FrameKind, payload?: Uint8Array): Uint8Array {
  const length = payload?.length ?? 0;
  const frame = new Uint8Array(headerBytes + length);
  writeHeader(frame, 0, { epoch, stream, kind, length });
  if (payload !== undefined) frame.set(payload, headerBytes);
  return frame;
}

export function encodeCredit(epoch: number, stream: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(4);
  new DataView(payload.buffer).setUint32(0, bytes, true);
  return encodeFrame(epoch, stream, frameKinds.credit, payload);
}

export function decodeCredit(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset, 4).getUint32(0, true);
}

/** Undefined when it is not a valid header, or exceeds a limit. */
function readHeader(view: DataView, maxDataBytes: number): FrameHeader | undefined {
  if (view.getUint32(0, true) !== magic || view.getUint32(16, true) !== checkOf(view)) return undefined;
  const word = view.getUint32(12, true);
  const [kind, length] = [word & 0xff, word >>> 8];
  const max = maxLength(kind, maxDataBytes);
  if (max === undefined || length > max || (kind === frameKinds.credit && length !== 4)) return undefined;
  // SAFE: maxLength() accepts exactly the known kinds
  return { epoch: view.getUint32(4, true), stream: view.getUint32(8, true), kind: kind as FrameKind, length };
}

function checkOf(view: DataView): number {
  let check = 0x811c9dc5;
  for (let at = 0; at < 16; at += 4) {
    check = Math.imul(check ^ view.getUint32(at, true), 0x01000193);
    check ^= check >>> 15;
  }
  return check >>> 0;
}

/**
 * `take`: pass it on. `skip`: a valid header, but drop the payload. `reject`: treat it as garbage, and look for the next
 * header right behind its first byte (its length may be wrong).
 */
export type Decision = 'take' | 'skip' | 'reject';

export interface FrameHandler {
  decide(header: FrameHeader): Decision;
  /** Gets a whole payload; for `data`, pieces as they arrive. The bytes are valid only until it returns. */
  frame(header: FrameHeader, payload: Uint8Array): void;
}

const noBytes = new Uint8Array(0);

/**
 * Splits a byte stream into frames. Takes bytes in any portions, never throws on their content, holds at most one
 * message (`limits.maxMessageBytes`), and finds the next frame after garbage.
 */
export class FrameParser {
  readonly #handler: FrameHandler;
  readonly #maxDataBytes: number;
  readonly #head = new Uint8Array(headerBytes);
  readonly #headView = new DataView(this.#head.buffer);
  #headFill = 0;
  #header: FrameHeader | undefined;
  #isTaken = false;
  #left = 0;
  /** Payload of a frame that is not `data`, until it is complete. */
  #body: Uint8Array = noBytes;
  /** Total bytes that belonged to no frame. */
  garbageBytes = 0;

  /** `maxDataBytes`: maximum payload of a data frame. */
  constructor(handler: FrameHandler, maxDataBytes: number = limits.maxDataBytes) {
    this.#handler = handler;
    this.#maxDataBytes = maxDataBytes;
  }

  /** Forgets a partial frame, after the channel was torn. */
  reset(): void {
    this.#headFill = 0;
    this.#header = undefined;
    this.#left = 0;
    this.#body = noBytes;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) at = this.#header === undefined ? this.#findHeader(chunk, at) : this.#payload(chunk, at);
  }

  #findHeader(chunk: Uint8Array, from: number): number {
    let at = from;
    if (this.#headFill === 0 && chunk[at] !== magicFirstByte) {
      const next = chunk.indexOf(magicFirstByte, at);
      this.garbageBytes += (next < 0 ? chunk.length : next) - at;
      if (next < 0) return chunk.length;
      at = next;
    }
    const part = chunk.subarray(at, at + headerBytes - this.#headFill);
    this.#head.set(part, this.#headFill);
    this.#headFill += part.length;
    at += part.length;
    if (this.#headFill < headerBytes) return at;
    const header = readHeader(this.#headView, this.#maxDataBytes);
    const decision = header === undefined ? 'reject' : this.#handler.decide(header);
    if (header === undefined || decision === 'reject') {
      this.#shiftHead();
      return at;
    }
    this.#headFill = 0;
    this.#begin(header, decision === 'take');
    return at;
  }

  /** Drops the header's bytes as garbage, up to the next that may begin a magic. */
  #shiftHead(): void {
    const next = this.#head.indexOf(magicFirstByte, 1);
    const dropped = next < 0 ? headerBytes : next;
    this.garbageBytes += dropped;
    this.#head.copyWithin(0, dropped);
    this.#headFill = headerBytes - dropped;
  }

  #begin(header: FrameHeader, isTaken: boolean): void {
    if (header.length === 0) {
      if (isTaken) this.#handler.frame(header, noBytes);
      return;
    }
    this.#header = header;
    this.#isTaken = isTaken;
    this.#left = header.length;
  }

  #payload(chunk: Uint8Array, at: number): number {
    const header = this.#header;
    if (header === undefined) return at;
    const piece = chunk.subarray(at, at + this.#left);
    const isWhole = piece.length === header.length;
    this.#left -= piece.length;
    if (this.#left === 0) this.#header = undefined;
    if (!this.#isTaken) return at + piece.length;
    if (header.kind === frameKinds.data || isWhole) {
      this.#handler.frame(header, piece);
      return at + piece.length;
    }
    if (this.#body.length === 0) this.#body = new Uint8Array(header.length);
    const body = this.#body;
    body.set(piece, header.length - this.#left - piece.length);
    if (this.#left === 0) {
      this.#body = noBytes;
      this.#handler.frame(header, body);
    }
    return at + piece.length;
  }
}
