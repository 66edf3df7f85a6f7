import { encodeCredit, encodeFrame, frameKinds, headerBytes, writeHeader } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { ReceiveCredit, SendCredit } from '#wire/credit.ts';

/** User of a stream in the agent: a pump between it and a descriptor. */
export interface StreamUser {
  /** Receives bytes from the host, valid only until it returns. Call `consumed` once they are used up. */
  data(bytes: Uint8Array): void;
  /** The host sends no more. */
  end(): void;
  /** The stream has ended: the host forgot it (`reset`), or its connection ended (`away`). */
  gone(why: 'reset' | 'away'): void;
  /** Sending may be possible again. */
  writable(): void;
  /** The host has stored this many more bytes. */
  acknowledged(bytes: number): void;
}

/** Calls of the channel that a stream needs. */
export interface StreamPort {
  readonly epoch: number;
  readonly isCongested: boolean;
  /** Maximum payload of a data frame. */
  readonly maxDataBytes: number;
  write(frame: Uint8Array, length: number): void;
  forget(stream: AgentStream): void;
}

const maxEarlyChunks = 64;
/** Credit below which nothing is sent: a frame of the last bytes of a window costs as much as a whole one. */
const minSentBytes = 4096;

/** The agent's end of one byte stream. */
export class AgentStream {
  readonly id: number;
  readonly #port: StreamPort;
  readonly #credit = new SendCredit(limits.streamWindowBytes);
  readonly #promise = new ReceiveCredit(limits.agentWindowBytes);
  #user: StreamUser | undefined;
  /** Data that arrived before there was a user. */
  #early: Uint8Array[] = [];
  #hasHostEnded = false;
  #hasEnded = false;
  #isGone = false;

  constructor(id: number, port: StreamPort) {
    this.id = id;
    this.#port = port;
  }

  use(user: StreamUser): void {
    this.#user = user;
    for (const bytes of this.#early.splice(0)) user.data(bytes);
    if (this.#hasHostEnded) user.end();
    if (this.#isGone) user.gone('away');
  }

  /** Number of bytes that may be sent now. */
  get sendable(): number {
    if (this.#isGone || this.#hasEnded || this.#port.isCongested) return 0;
    const { available } = this.#credit;
    // The host has most of a window then, and will grant more.
    return available < minSentBytes ? 0 : Math.min(available, this.#port.maxDataBytes);
  }

  /** Sends `length` bytes (at most `sendable`) from `headerBytes` of `buffer`; the header is written before them. */
  send(buffer: Uint8Array, length: number): void {
    if (this.#isGone || length === 0) return;
    this.#credit.spend(length);
    writeHeader(buffer, 0, { epoch: this.#port.epoch, stream: this.id, kind: frameKinds.data, length });
    this.#port.write(buffer, headerBytes + length);
  }

  /** Ends the bytes to the host. */
  end(): void {
    if (this.#isGone || this.#hasEnded) return;
    this.#hasEnded = true;
    this.#control(frameKinds.end);
    this.#forgetIfDone();
  }

  /** Forgets the stream, in both directions. */
  reset(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#control(frameKinds.reset);
    this.#port.forget(this);
  }

  /** Records that bytes of `data` were used up, so that the host may send as many more. */
  consumed(bytes: number): void {
    const grant = this.#promise.consume(bytes);
    if (grant === 0 || this.#isGone || this.#hasHostEnded) return;
    const frame = encodeCredit(this.#port.epoch, this.id, grant);
    this.#port.write(frame, frame.length);
  }

  /** Called by the channel with the bytes from the host. */
  received(bytes: Uint8Array): void {
    if (this.#isGone || this.#hasHostEnded) return;
    if (!this.#promise.receive(bytes.length) || this.#early.length > maxEarlyChunks) {
      this.reset();
      this.#user?.gone('reset');
    } else if (this.#user === undefined) this.#early.push(bytes.slice());
    else this.#user.data(bytes);
  }

  hostEnded(): void {
    if (this.#isGone || this.#hasHostEnded) return;
    this.#hasHostEnded = true;
    this.#user?.end();
    this.#forgetIfDone();
  }

  lost(why: 'reset' | 'away'): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#early = [];
    this.#user?.gone(why);
  }

  granted(bytes: number): void {
    this.#credit.grant(bytes);
    if (!this.#isGone) this.#user?.acknowledged(bytes);
    this.writable();
  }

  writable(): void {
    if (!this.#isGone) this.#user?.writable();
  }

  #control(kind: typeof frameKinds.end | typeof frameKinds.reset): void {
    const frame = encodeFrame(this.#port.epoch, this.id, kind);
    this.#port.write(frame, frame.length);
  }

  #forgetIfDone(): void {
    if (this.#hasEnded && this.#hasHostEnded) this.#port.forget(this);
  }
}
