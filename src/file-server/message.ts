import { size } from './fuse.ts';

/** Highest upper 32 bits of a number that is still exact. */
const maxHigh = 0x1f_ffff;

/** One request of the guest, whose numbers are not to be trusted. Offsets count from the end of the header. */
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

  /** Name of the request in its reply and in an interruption. */
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

  /** Reads a number. Throws `RangeError` if the message is too short, as the other methods do. */
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

  /** All 64 bits, as a key for comparing. */
  key(offset: number): string {
    return `${this.u32(offset)}:${this.u32(offset + 4)}`;
  }

  /** Bytes from `offset` to the end. */
  lengthFrom(offset: number): number {
    return this.bytes.length - this.at(offset);
  }

  /** Reads 64 bits. Returns -1, which is no node, handle or offset, for a number that is not exact. */
  #long(at: number): number {
    const high = this.#view.getUint32(at + 4, true);
    return high > maxHigh ? -1 : high * 2 ** 32 + this.#view.getUint32(at, true);
  }
}

/** Buffer of one reply: a header and `maxBytes`. Offsets count from the end of the header. */
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

  /** Writes the header and returns the length of the message. `unique` is that of the request. */
  finish(unique: Uint8Array, result: number): number {
    const length = size.replyHeader + Math.max(result, 0);
    this.#view.setUint32(0, length, true);
    this.#view.setInt32(4, Math.min(result, 0), true);
    this.bytes.set(unique, 8);
    return length;
  }
}
