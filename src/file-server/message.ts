import { size } from './fuse.ts';

/** The highest 32 bits of a number that is still exact. */
const maxHigh = 0x1f_ffff;

/** One request of the guest: every number in it is a claim. Offsets count from the end of the header. */
export class Request {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** `bytes`: the whole message, at least a header; valid until the next one is read. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get opcode(): number {
    return this.#view.getUint32(4, true);
  }

  /** By which a reply, or an interruption, names it. */
  get unique(): string {
    return `${this.#view.getUint32(8, true)}:${this.#view.getUint32(12, true)}`;
  }

  get node(): number {
    return this.#long(16);
  }

  get uid(): number {
    return this.#view.getUint32(24, true);
  }

  get gid(): number {
    return this.#view.getUint32(28, true);
  }

  /** Place of a byte of the body in `bytes`. */
  at(offset: number): number {
    return size.requestHeader + offset;
  }

  /** Throws `RangeError` where the message ends before it, as do the others. */
  u32(offset: number): number {
    return this.#view.getUint32(size.requestHeader + offset, true);
  }

  u64(offset: number): number {
    return this.#long(size.requestHeader + offset);
  }

  i64(offset: number): number {
    const at = size.requestHeader + offset;
    return this.#view.getInt32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true);
  }

  /** All 64 bits, as what tells one from another. */
  key(offset: number): string {
    return `${this.u32(offset)}:${this.u32(offset + 4)}`;
  }

  /** Bytes from `offset` to the end. */
  lengthFrom(offset: number): number {
    return this.bytes.length - this.at(offset);
  }

  /** A number that is not exact is none that we ever gave out: -1 is no node, no handle and no offset. */
  #long(at: number): number {
    const high = this.#view.getUint32(at + 4, true);
    return high > maxHigh ? -1 : high * 2 ** 32 + this.#view.getUint32(at, true);
  }
}

/** Where replies are written, one at a time: room for a header and `maxBytes`. Offsets count from the header's end. */
export class Reply {
  readonly bytes: Uint8Array;
  readonly maxBytes: number;
  readonly #view: DataView;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
    this.bytes = new Uint8Array(size.replyHeader + maxBytes);
    this.#view = new DataView(this.bytes.buffer);
  }

  at(offset: number): number {
    return size.replyHeader + offset;
  }

  clear(length: number): void {
    this.bytes.fill(0, size.replyHeader, size.replyHeader + length);
  }

  u16(offset: number, value: number): void {
    this.#view.setUint16(size.replyHeader + offset, value, true);
  }

  u32(offset: number, value: number): void {
    this.#view.setUint32(size.replyHeader + offset, value, true);
  }

  u64(offset: number, value: number): void {
    this.u32(offset, value % 2 ** 32);
    this.u32(offset + 4, Math.floor(value / 2 ** 32));
  }

  readU32(offset: number): number {
    return this.#view.getUint32(size.replyHeader + offset, true);
  }

  readU64(offset: number): number {
    return this.readU32(offset + 4) * 2 ** 32 + this.readU32(offset);
  }

  /** Fills in the header; the message is the first so many of `bytes`. `unique` is that of the request. */
  finish(unique: Uint8Array, result: number): number {
    const length = size.replyHeader + Math.max(result, 0);
    this.#view.setUint32(0, length, true);
    this.#view.setInt32(4, Math.min(result, 0), true);
    this.bytes.set(unique, 8);
    return length;
  }
}
