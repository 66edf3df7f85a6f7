import { Duplex } from 'node:stream';
import { ReceiveCredit, SendCredit } from '#wire/credit.ts';
import { decodeCredit, encodeCredit, frameKinds, type FrameKind } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import type { FakeAgent, Received } from './fake-agent.ts';

/** The agent's end of one byte stream, with the agent's windows; `link.conformance.ts` judges it as a part of `FakeGuest`. */
export class FakeStream extends Duplex {
  readonly #id: number;
  readonly #agent: FakeAgent;
  readonly #epoch: number;
  readonly #sendCredit = new SendCredit(limits.streamWindowBytes);
  readonly #receiveCredit = new ReceiveCredit(limits.agentWindowBytes);
  readonly #arrived: Buffer[] = [];
  #wantsMore = false;
  #hasPeerEnded = false;
  #hasEnded = false;
  #outgoing: { readonly bytes: Buffer; readonly done: () => void } | undefined;

  constructor(id: number, agent: FakeAgent) {
    super({ allowHalfOpen: true });
    this.#id = id;
    this.#agent = agent;
    this.#epoch = agent.epoch;
    this.on('error', () => {});
  }

  /** Whether both halves have ended, or it was reset. */
  get isOver(): boolean {
    return this.destroyed || (this.#hasPeerEnded && this.#hasEnded);
  }

  accept({ header, payload }: Received): void {
    if (header.kind === frameKinds.data) {
      if (!this.#receiveCredit.receive(payload.length))
        this.destroy(new Error('the host sent more than it was granted'));
      this.#arrived.push(payload);
    }
    if (header.kind === frameKinds.end) this.#hasPeerEnded = true;
    if (header.kind === frameKinds.reset) this.destroy();
    if (header.kind === frameKinds.credit) {
      this.#sendCredit.grant(decodeCredit(payload));
      this.#send();
    }
    this.#deliver();
  }

  override _read(): void {
    this.#wantsMore = true;
    this.#deliver();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#outgoing = { bytes, done };
    this.#send();
  }

  override _final(done: () => void): void {
    this.#hasEnded = true;
    this.#frame(frameKinds.end);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!(this.#hasEnded && this.#hasPeerEnded)) this.#frame(frameKinds.reset);
    done(error);
  }

  #deliver(): void {
    while (this.#wantsMore && !this.destroyed) {
      const bytes = this.#arrived.shift();
      if (bytes === undefined && this.#hasPeerEnded) this.push(null);
      if (bytes === undefined) return;
      this.#wantsMore = this.push(bytes);
      const grant = this.#receiveCredit.consume(bytes.length);
      if (grant > 0 && this.#isCurrent) this.#agent.raw(encodeCredit(this.#epoch, this.#id, grant));
    }
  }

  #send(): void {
    while (this.#outgoing !== undefined && this.#sendCredit.available > 0 && !this.destroyed) {
      const { bytes, done } = this.#outgoing;
      const length = Math.min(bytes.length, this.#sendCredit.available, limits.maxDataBytes);
      this.#sendCredit.spend(length);
      if (length > 0) this.#frame(frameKinds.data, bytes.subarray(0, length));
      this.#outgoing = length === bytes.length ? undefined : { bytes: bytes.subarray(length), done };
      if (length === bytes.length) done();
    }
  }

  get #isCurrent(): boolean {
    return this.#agent.epoch === this.#epoch;
  }

  #frame(kind: FrameKind, payload?: Uint8Array): void {
    if (this.#isCurrent) this.#agent.frame(this.#id, kind, payload);
  }
}
