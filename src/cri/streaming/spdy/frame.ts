import type { Headers } from './header-block.ts';
import { HeaderInflater } from './header-block.ts';
import { spdyLimits } from './limits.ts';
import { brokenRule } from './spdy-error.ts';

/** Frames of SPDY/3.1 (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1) that the server needs. */
export type Frame =
  | { readonly kind: 'synStream'; readonly streamId: number; readonly headers: Headers; readonly fin: boolean }
  | {
      readonly kind: 'synReply' | 'headers';
      readonly streamId: number;
      readonly headers: Headers;
      readonly fin: boolean;
    }
  | { readonly kind: 'rstStream'; readonly streamId: number; readonly status: number }
  | { readonly kind: 'settings'; readonly initialWindowBytes: number | undefined }
  | { readonly kind: 'ping'; readonly id: number }
  | { readonly kind: 'goAway'; readonly lastStreamId: number; readonly status: number }
  | { readonly kind: 'windowUpdate'; readonly streamId: number; readonly deltaBytes: number }
  /** A piece of a data frame as it arrived; large frames come in several. `fin` only with its last piece. */
  | { readonly kind: 'data'; readonly streamId: number; readonly bytes: Buffer; readonly fin: boolean };

export const version = 3;
export const types = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  headers: 8,
  windowUpdate: 9,
} as const;
export const finFlag = 0x01;
/** The setting with the initial window of streams. */
export const initialWindowSetting = 7;

const frameHeaderBytes = 8;
const id31 = 0x7fff_ffff;

type Expected =
  | { readonly kind: 'header' }
  | { readonly kind: 'control'; readonly type: number; readonly flags: number; readonly length: number }
  | { readonly kind: 'data'; readonly streamId: number; readonly fin: boolean; left: number };

/**
 * Splits bytes that arrive in any pieces into frames. Keeps at most one frame other than data. Data is returned as it
 * arrives, so that a declared length costs no memory.
 */
export class FrameReader {
  readonly #inflater = new HeaderInflater();
  #expected: Expected = { kind: 'header' };
  #kept: Buffer = Buffer.alloc(0);

  /** Parses a piece. Errors: `invalid`, after which the stream cannot be read. */
  *read(chunk: Buffer): Generator<Frame> {
    let rest = this.#kept.length === 0 ? chunk : Buffer.concat([this.#kept, chunk]);
    this.#kept = Buffer.alloc(0);
    for (;;) {
      const expected = this.#expected;
      if (expected.kind === 'data') {
        const bytes = rest.subarray(0, expected.left);
        if (bytes.length === 0 && expected.left > 0) return;
        rest = rest.subarray(bytes.length);
        expected.left -= bytes.length;
        const isLast = expected.left === 0;
        if (isLast) this.#expected = { kind: 'header' };
        if (bytes.length > 0 || expected.fin)
          yield { kind: 'data', streamId: expected.streamId, bytes, fin: isLast && expected.fin };
        continue;
      }
      const needed = expected.kind === 'header' ? frameHeaderBytes : expected.length;
      if (rest.length < needed) {
        this.#kept = Buffer.from(rest); // a copy, since the original piece may be large
        return;
      }
      const part = rest.subarray(0, needed);
      rest = rest.subarray(needed);
      if (expected.kind === 'header') this.#expected = parseFrameHeader(part);
      else {
        this.#expected = { kind: 'header' };
        const frame = parseControlFrame(expected.type, expected.flags, part, this.#inflater);
        if (frame !== undefined) yield frame;
      }
    }
  }
}

function parseFrameHeader(bytes: Buffer): Expected {
  const first = bytes.readUInt32BE(0);
  const flags = bytes.readUInt8(4);
  const length = bytes.readUIntBE(5, 3);
  if ((first & 0x8000_0000) === 0) {
    if (first === 0) throw brokenRule('data on stream 0');
    return { kind: 'data', streamId: first, fin: (flags & finFlag) !== 0, left: length };
  }
  const frameVersion = (first >>> 16) & 0x7fff;
  if (frameVersion !== version) throw brokenRule(`a frame of version ${frameVersion}`);
  if (length > spdyLimits.controlFrameBytes) throw brokenRule(`a control frame of ${length} bytes`);
  return { kind: 'control', type: first & 0xffff, flags, length };
}

/** Returns undefined for an unknown type, which the draft says to ignore. */
function parseControlFrame(type: number, flags: number, bytes: Buffer, inflater: HeaderInflater): Frame | undefined {
  const fin = (flags & finFlag) !== 0;
  switch (type) {
    case types.synStream:
      atLeast(bytes, 10);
      return { kind: 'synStream', streamId: streamIdOf(bytes), fin, headers: inflater.inflate(bytes.subarray(10)) };
    case types.synReply:
    case types.headers: {
      atLeast(bytes, 4);
      const kind = type === types.headers ? 'headers' : 'synReply';
      return { kind, streamId: streamIdOf(bytes), fin, headers: inflater.inflate(bytes.subarray(4)) };
    }
    case types.rstStream:
      exactly(bytes, 8);
      return { kind: 'rstStream', streamId: streamIdOf(bytes), status: bytes.readUInt32BE(4) };
    case types.settings:
      return { kind: 'settings', initialWindowBytes: initialWindowOf(bytes) };
    case types.ping:
      exactly(bytes, 4);
      return { kind: 'ping', id: bytes.readUInt32BE(0) };
    case types.goAway:
      exactly(bytes, 8);
      return { kind: 'goAway', lastStreamId: bytes.readUInt32BE(0) & id31, status: bytes.readUInt32BE(4) };
    case types.windowUpdate: {
      exactly(bytes, 8);
      const deltaBytes = bytes.readUInt32BE(4) & id31;
      if (deltaBytes === 0) throw brokenRule('a window update of 0 bytes');
      return { kind: 'windowUpdate', streamId: bytes.readUInt32BE(0) & id31, deltaBytes };
    }
    default:
      return undefined;
  }
}

function initialWindowOf(bytes: Buffer): number | undefined {
  atLeast(bytes, 4);
  const count = bytes.readUInt32BE(0);
  if (count > bytes.length || bytes.length !== 4 + count * 8) throw brokenRule('settings of a wrong length');
  let found: number | undefined;
  for (let at = 4; at < bytes.length; at += 8) {
    if (bytes.readUIntBE(at + 1, 3) !== initialWindowSetting) continue;
    found = bytes.readUInt32BE(at + 4);
    if (found > id31) throw brokenRule('an initial window of more than 2 GiB');
  }
  return found;
}

function streamIdOf(bytes: Buffer): number {
  const id = bytes.readUInt32BE(0) & id31;
  if (id === 0) throw brokenRule('a frame for stream 0');
  return id;
}

function atLeast(bytes: Buffer, length: number): void {
  if (bytes.length < length) throw brokenRule('a frame that is too short');
}

function exactly(bytes: Buffer, length: number): void {
  if (bytes.length !== length) throw brokenRule('a frame of a wrong length');
}

/** Returns the bytes of a frame without flags; `block` holds compressed headers. */
export function controlFrame(type: number, numbers: readonly number[], block?: Buffer): Buffer {
  const length = numbers.length * 4 + (block?.length ?? 0);
  const frame = Buffer.alloc(frameHeaderBytes + numbers.length * 4);
  frame.writeUInt16BE(0x8000 | version, 0);
  frame.writeUInt16BE(type, 2);
  frame.writeUInt32BE(length, 4);
  for (const [index, number] of numbers.entries()) frame.writeUInt32BE(number >>> 0, frameHeaderBytes + index * 4);
  return block === undefined ? frame : Buffer.concat([frame, block]);
}

/** Returns the header of `length` bytes of data, at most 16 MiB less one. */
export function dataHeader(streamId: number, length: number, fin: boolean): Buffer {
  const header = Buffer.alloc(frameHeaderBytes);
  header.writeUInt32BE(streamId, 0);
  header.writeUInt32BE((((fin ? finFlag : 0) << 24) | length) >>> 0, 4);
  return header;
}
