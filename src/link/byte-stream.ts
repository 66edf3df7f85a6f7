import { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import { ReceiveCredit, SendCredit } from '#wire/credit.ts';
import { limits } from '#wire/limits.ts';
import type { LinkStream } from './link.ts';

/** Frames that a stream sends through its link. `forget` removes the stream from the link. */
export interface StreamWires {
  data(id: number, bytes: Uint8Array): void;
  end(id: number): void;
  reset(id: number): void;
  credit(id: number, bytes: number): void;
  forget(id: number): void;
}

/**
 * Waiting bytes, copied into blocks: a guest that sends them one by one makes the host keep no more memory than one that
 * sends them together.
 */
class Blocks {
  #blocks: Buffer[] = [];
  /** Bytes used in the last block. */
  #used = 0;

  push(bytes: Uint8Array): void {
    let rest = bytes;
    while (rest.length > 0) {
      const last = this.#blocks.at(-1);
      if (last === undefined || this.#used === last.length) {
        // The first piece gets exactly the room that it needs: most are taken at once, alone.
        const isFirst = last === undefined;
        this.#blocks.push(Buffer.allocUnsafeSlow(isFirst ? rest.length : limits.maxOutputBytes));
        this.#used = 0;
        continue;
      }
      const piece = rest.subarray(0, last.length - this.#used);
      last.set(piece, this.#used);
      this.#used += piece.length;
      rest = rest.subarray(piece.length);
    }
  }

  shift(): Buffer | undefined {
    const first = this.#blocks.shift();
    return this.#blocks.length > 0 ? first : first?.subarray(0, this.#used);
  }

  clear(): void {
    this.#blocks = [];
  }
}

/** The host's end of one byte stream. Sends nothing before `open`, when the agent knows the stream. */
export class ByteStream extends Duplex implements LinkStream {
  readonly id: number;
  readonly #wires: StreamWires;
  readonly #acknowledges: boolean;
  readonly #sendCredit = new SendCredit(limits.agentWindowBytes);
  readonly #receiveCredit = new ReceiveCredit(limits.streamWindowBytes);
  #isOpen = false;
  #hasPeerEnded = false;
  #hasEnded = false;
  readonly #arrived = new Blocks();
  #wantsMore = false;
  #outgoing: { readonly bytes: Uint8Array; readonly done: (error?: Error | null) => void } | undefined;
  #final: ((error?: Error | null) => void) | undefined;

  constructor(id: number, wires: StreamWires, acknowledges: boolean) {
    // Data that was not requested yet waits here, in blocks, not in the pieces in which the guest sent it.
    super({ allowHalfOpen: true, readableHighWaterMark: 1, writableHighWaterMark: limits.agentWindowBytes });
    this.id = id;
    this.#wires = wires;
    this.#acknowledges = acknowledges;
  }

  /** Called when the agent knows the stream. */
  open(): void {
    this.#isOpen = true;
    this.#send();
  }

  /** Takes bytes from the guest; the caller may reuse the buffer when this returns. */
  received(bytes: Uint8Array): void {
    if (this.destroyed || this.#hasPeerEnded) return;
    if (!this.#receiveCredit.receive(bytes.length)) {
      this.destroy(new PodvmError('exhausted', 'Cannot continue reading from the guest: it sent more than its credit'));
      return;
    }
    this.#arrived.push(bytes);
    this.#deliver();
  }

  acknowledge(bytes: number): void {
    if (this.#acknowledges) this.#consume(bytes);
  }

  peerEnded(): void {
    if (this.destroyed || this.#hasPeerEnded) return;
    this.#hasPeerEnded = true;
    this.#deliver();
  }

  granted(bytes: number): void {
    this.#sendCredit.grant(bytes);
    this.#send();
  }

  override _read(): void {
    this.#wantsMore = true;
    this.#deliver();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#outgoing = { bytes: chunk, done };
    this.#send();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#final = done;
    this.#send();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#isOpen && !(this.#hasEnded && this.#hasPeerEnded)) this.#wires.reset(this.id);
    this.#wires.forget(this.id);
    this.#arrived.clear();
    done(error);
  }

  #deliver(): void {
    while (this.#wantsMore) {
      const bytes = this.#arrived.shift();
      if (bytes === undefined) {
        if (this.#hasPeerEnded) {
          this.#wantsMore = false;
          this.push(null);
        }
        return;
      }
      this.#wantsMore = this.push(bytes);
      if (!this.#acknowledges) this.#consume(bytes.length);
    }
  }

  #consume(bytes: number): void {
    const grant = this.#receiveCredit.consume(bytes);
    if (grant > 0 && !this.#hasPeerEnded && !this.destroyed) this.#wires.credit(this.id, grant);
  }

  #send(): void {
    if (!this.#isOpen || this.destroyed) return;
    while (this.#outgoing !== undefined && this.#sendCredit.available > 0) {
      const { bytes, done } = this.#outgoing;
      const length = Math.min(bytes.length, this.#sendCredit.available, limits.maxDataBytes);
      this.#sendCredit.spend(length);
      if (length > 0) this.#wires.data(this.id, bytes.subarray(0, length));
      this.#outgoing = length === bytes.length ? undefined : { bytes: bytes.subarray(length), done };
      if (length === bytes.length) done();
    }
    if (this.#outgoing !== undefined || this.#final === undefined) return;
    const done = this.#final;
    this.#final = undefined;
    this.#hasEnded = true;
    this.#wires.end(this.id);
    done();
  }
}
