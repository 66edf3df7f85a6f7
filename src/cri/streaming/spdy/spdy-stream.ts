import { Duplex } from 'node:stream';
import type { Headers } from './header-block.ts';
import { reset } from './spdy-error.ts';

/** Parts of the session that a stream uses. */
export interface StreamWires {
  /** Returns the number of bytes that the peer allows this stream to send now. */
  available(streamId: number): number;
  /** Sends data. `taken` is called when the kernel has the bytes, which slows a container down to the client's pace. */
  data(streamId: number, bytes: Buffer, taken: () => void): void;
  end(streamId: number): void;
  reset(streamId: number, status: number): void;
  /** Reports a change of the bytes that wait for a reader. */
  queued(deltaBytes: number): void;
  /** Reports bytes that were read. */
  consumed(streamId: number, bytes: number): void;
  forget(streamId: number): void;
}

type Done = (error?: Error | null) => void;

/** The server's end of one stream that the client opened. Destroyed when either side resets it, or its session ends. */
export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: Headers;
  readonly #wires: StreamWires;
  #arrived: Buffer[] = [];
  #queuedBytes = 0;
  #wantsMore = false;
  #hasPeerEnded = false;
  #hasEnded = false;
  #isGone = false;
  #outgoing: { readonly bytes: Buffer; readonly done: Done } | undefined;
  #final: Done | undefined;

  constructor(id: number, headers: Headers, wires: StreamWires) {
    super({ allowHalfOpen: true, highWaterMark: 64 * 1024 });
    this.id = id;
    this.headers = headers;
    this.#wires = wires;
    this.on('error', () => {}); // readers and writers handle errors; those of an unused stream must not end the process
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get hasPeerEnded(): boolean {
    return this.#hasPeerEnded;
  }

  received(bytes: Buffer): void {
    if (this.#isGone || bytes.length === 0) return;
    this.#arrived.push(bytes);
    this.#queue(bytes.length);
    this.#deliver();
  }

  peerEnded(): void {
    this.#hasPeerEnded = true;
    this.#deliver();
  }

  /** Ends the stream after a reset or the session's end; sends nothing. */
  peerGone(error: Error): void {
    this.#isGone = true;
    this.destroy(error);
  }

  windowGrew(): void {
    this.#send();
  }

  override _read(): void {
    this.#wantsMore = true;
    this.#deliver();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#outgoing = { bytes: chunk, done };
    this.#send();
  }

  override _final(done: Done): void {
    this.#final = done;
    this.#send();
  }

  override _destroy(error: Error | null, done: Done): void {
    if (!this.#isGone && !(this.#hasEnded && this.#hasPeerEnded)) this.#wires.reset(this.id, reset.cancel);
    this.#isGone = true;
    this.#arrived = [];
    this.#queue(-this.#queuedBytes);
    this.#wires.forget(this.id);
    done(error);
  }

  #queue(deltaBytes: number): void {
    this.#queuedBytes += deltaBytes;
    this.#wires.queued(deltaBytes);
  }

  #deliver(): void {
    while (this.#wantsMore && !this.#isGone) {
      const bytes = this.#arrived.shift();
      if (bytes === undefined) {
        if (!this.#hasPeerEnded) return;
        this.#wantsMore = false;
        this.push(null);
        return;
      }
      this.#queue(-bytes.length);
      this.#wires.consumed(this.id, bytes.length);
      this.#wantsMore = this.push(bytes);
    }
  }

  #send(): void {
    const outgoing = this.#outgoing;
    if (this.#isGone) return;
    if (outgoing !== undefined) {
      const bytes = outgoing.bytes.subarray(0, this.#wires.available(this.id));
      if (bytes.length === 0 && outgoing.bytes.length > 0) return; // waits until the peer extends its window
      const left = outgoing.bytes.subarray(bytes.length);
      this.#outgoing = left.length === 0 ? undefined : { bytes: left, done: outgoing.done };
      this.#wires.data(this.id, bytes, () => {
        if (left.length === 0) outgoing.done();
      });
      return;
    }
    const final = this.#final;
    if (final === undefined) return;
    this.#final = undefined;
    this.#hasEnded = true;
    this.#wires.end(this.id);
    final();
  }
}
