import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { decodeCredit, encodeFrame, FrameParser, frameKinds, type Decision, type FrameHeader } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import {
  hostMessageSchema,
  type ToldEvent,
  type ToldMessage,
  type CallMessage,
  type Hello,
  type ToldWelcome,
} from '#wire/messages.ts';
import { again, ready, type Descriptors, type Text } from '#engine/engine.ts';
import { AgentStream, type StreamPort } from './stream.ts';

export type ChannelParts = Pick<Descriptors, 'read' | 'write' | 'watch' | 'unwatch'> &
  Pick<Text, 'encodeUtf8' | 'decodeUtf8'>;

export interface ChannelOwner {
  hello(hello: Hello): ToldWelcome;
  /** Answers by `reply`; an answer after the connection has changed is dropped. */
  call(call: CallMessage, reply: (message: ToldMessage) => void): void;
  /** Called when the channel has ended permanently, which only an inherited socket does. */
  ended(): void;
}

const readBytes = 16 * 1024;

/**
 * The agent's end of the channel: frames in, frames out, streams, events. Continues whatever the host sends, including
 * garbage. While the host is away nothing is written: events are kept, streams are dropped, and processes' output
 * waits.
 */
export class Channel implements StreamPort {
  readonly #parts: ChannelParts;
  readonly #fd: number;
  readonly #owner: ChannelOwner;
  readonly #parser: FrameParser;
  readonly #buffer = new Uint8Array(readBytes);
  readonly #streams = new Map<number, AgentStream>();
  #epoch = 0;
  #maxDataBytes: number = limits.maxDataBytes;
  /** Parts of a call that is larger than one frame. */
  #callParts: Uint8Array[] = [];
  #callPartBytes = 0;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #events: ToldEvent[] = [];
  #isAway = false;
  #wantsWrite = false;

  constructor(parts: ChannelParts, fd: number, owner: ChannelOwner) {
    this.#parts = parts;
    this.#fd = fd;
    this.#owner = owner;
    this.#parser = new FrameParser({ decide: (header) => this.#decide(header), frame: (h, p) => this.#frame(h, p) });
    this.#watch();
  }

  get epoch(): number {
    return this.#epoch;
  }

  get maxDataBytes(): number {
    return this.#maxDataBytes;
  }

  get isCongested(): boolean {
    return this.#queuedBytes >= limits.maxQueuedWriteBytes;
  }

  get isIdle(): boolean {
    return this.#queuedBytes === 0;
  }

  /** Opens the stream with that number. Errors: `exhausted`; `alreadyExists`; `invalid` for 0. */
  openStream(id: number): AgentStream {
    if (id === 0) throw new PodvmError('invalid', 'Cannot open a stream: 0 is the control stream');
    const there = this.#streams.get(id);
    if (there !== undefined) throw new PodvmError('alreadyExists', `Cannot open stream ${id}: it is in use`);
    if (this.#streams.size >= limits.maxStreams) {
      throw new PodvmError('exhausted', `Cannot open stream ${id}: ${limits.maxStreams} are open`);
    }
    const stream = new AgentStream(id, this);
    this.#streams.set(id, stream);
    return stream;
  }

  forget(stream: AgentStream): void {
    this.#streams.delete(stream.id);
  }

  /**
   * Sends events in order; keeps them while the host is away. When there are too many, drops the oldest, but never an exit.
   * Keeps only the last termination message of a container.
   */
  tell(event: ToldEvent): void {
    if (this.#epoch !== 0 && !this.#isAway && this.#events.length === 0 && !this.isCongested) {
      this.#send({ t: 'event', event });
      return;
    }
    const earlier = this.#events.findIndex((queued) => isReplaced(queued, event));
    if (earlier >= 0) this.#events.splice(earlier, 1);
    if (this.#events.length >= limits.maxQueuedEvents) {
      const log = this.#events.findIndex(({ kind }) => kind === 'log');
      const dropped = log >= 0 ? log : this.#events.findIndex(({ kind }) => kind !== 'exited');
      if (dropped >= 0) this.#events.splice(dropped, 1);
    }
    this.#events.push(event); // the number of exits is limited by the processes that the host has started
  }

  write(frame: Uint8Array, length: number): void {
    let done = 0;
    if (this.#queue.length === 0 && !this.#isAway) {
      done = this.#tryWrite(frame, length);
      if (done === length) return;
    }
    this.#queue.push(frame.slice(done, length));
    this.#queuedBytes += length - done;
    this.#watch();
  }

  #send(message: ToldMessage): void {
    const frame = encodeFrame(this.#epoch, 0, frameKinds.message, this.#parts.encodeUtf8(JSON.stringify(message)));
    this.write(frame, frame.length);
  }

  /** Writes as much as the channel takes: a virtio-serial port takes 32 KiB at a time. */
  #tryWrite(bytes: Uint8Array, length: number): number {
    let done = 0;
    try {
      while (done < length) {
        const more = this.#parts.write(this.#fd, bytes, done, length - done);
        if (more === again || more === 0) break; // a port whose queue has failed takes 0 bytes
        done += more;
      }
    } catch {
      // The host has just left; the handler gets the hangup.
    }
    return done;
  }

  #watch(): void {
    if (this.#isAway) return;
    this.#wantsWrite = this.#queue.length > 0;
    const interest = this.#wantsWrite ? ready.readable | ready.writable : ready.readable;
    this.#parts.watch(this.#fd, interest, (events) => this.#ready(events));
  }

  #ready(events: number): void {
    let bytes: number = again;
    if ((events & (ready.readable | ready.hangup | ready.error)) !== 0) {
      try {
        bytes = this.#parts.read(this.#fd, this.#buffer);
      } catch {
        bytes = 0;
      }
      if (bytes > 0) this.#parser.push(this.#buffer.subarray(0, bytes));
    }
    if (bytes === 0 || (bytes < 0 && (events & ready.hangup) !== 0)) this.#hostAway();
    else if ((events & ready.writable) !== 0) this.#flush();
  }

  /** Waits for a change of the port: a virtio-serial port without its host reports a hangup all the time. */
  #hostAway(): void {
    this.#isAway = true;
    this.#parser.reset();
    this.#connectionEnded();
    this.#owner.ended();
    this.#parts.watch(this.#fd, ready.readable | ready.changed, (events) => {
      if ((events & ready.hangup) !== 0) return;
      this.#isAway = false;
      this.#watch();
      this.#ready(events);
    });
  }

  #connectionEnded(): void {
    this.#epoch = 0;
    this.#dropParts();
    this.#queue = [];
    this.#queuedBytes = 0;
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const stream of streams) stream.lost('away');
  }

  #flush(): void {
    const wasCongested = this.isCongested;
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const done = this.#tryWrite(next, next.length);
      this.#queuedBytes -= done;
      if (done < next.length) {
        this.#queue[0] = next.subarray(done);
        break;
      }
      this.#queue.shift();
    }
    if (this.#queue.length === 0 && this.#wantsWrite) this.#watch();
    if (!this.isCongested) this.#flushEvents();
    if (wasCongested && !this.isCongested) for (const stream of this.#streams.values()) stream.writable();
  }

  #flushEvents(): void {
    if (this.#epoch === 0) return;
    for (const event of this.#events.splice(0)) this.#send({ t: 'event', event });
  }

  #decide(header: FrameHeader): Decision {
    if (header.kind === frameKinds.hello) return 'take';
    return header.epoch === this.#epoch && this.#epoch !== 0 ? 'take' : 'skip';
  }

  #frame(header: FrameHeader, payload: Uint8Array): void {
    switch (header.kind) {
      case frameKinds.hello:
      case frameKinds.message:
        this.#message(header, payload);
        return;
      case frameKinds.part:
        this.#part(payload);
        return;
      case frameKinds.data:
        this.#streams.get(header.stream)?.received(payload);
        return;
      case frameKinds.end:
        this.#streams.get(header.stream)?.hostEnded();
        return;
      case frameKinds.reset: {
        const stream = this.#streams.get(header.stream);
        this.#streams.delete(header.stream);
        stream?.lost('reset');
        return;
      }
      case frameKinds.credit:
        this.#streams.get(header.stream)?.granted(decodeCredit(payload));
        return;
    }
  }

  /** Drops the parts of a call when there are too many: the rest of it is then invalid JSON, and ignored. */
  #part(payload: Uint8Array): void {
    if (this.#callPartBytes + payload.length > limits.maxCallBytes) this.#dropParts();
    this.#callParts.push(payload.slice());
    this.#callPartBytes += payload.length;
  }

  #dropParts(): void {
    this.#callParts = [];
    this.#callPartBytes = 0;
  }

  /** Returns all parts of a call, ending with `rest`. */
  #takeParts(rest: Uint8Array): Uint8Array {
    const parts = this.#callParts;
    if (parts.length === 0) return rest;
    const whole = new Uint8Array(this.#callPartBytes + rest.length);
    this.#dropParts();
    let at = 0;
    for (const part of [...parts, rest]) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  #message(header: FrameHeader, payload: Uint8Array): void {
    let json: unknown;
    try {
      const whole = header.kind === frameKinds.message ? this.#takeParts(payload) : payload;
      json = JSON.parse(this.#parts.decodeUtf8(whole));
    } catch {
      return; // no call id to answer to
    }
    const parsed = v.safeParse(hostMessageSchema, json);
    if (!parsed.success) return;
    const message = parsed.output;
    if (message.t === 'hello') {
      if (header.kind !== frameKinds.hello || header.epoch === 0) return;
      if (header.epoch !== this.#epoch) this.#connectionEnded();
      this.#epoch = header.epoch;
      this.#maxDataBytes = Math.min(message.maxDataBytes ?? limits.maxDataBytes, limits.maxOutputBytes);
      this.#isAway = false;
      this.#send(this.#owner.hello(message));
      this.#flushEvents();
    } else if (header.kind === frameKinds.message) {
      const epoch = this.#epoch;
      this.#owner.call(message, (answer) => {
        if (epoch === this.#epoch) this.#send(answer);
      });
    }
  }
}

const isReplaced = (queued: ToldEvent, by: ToldEvent): boolean =>
  queued.kind === 'terminationMessage' && by.kind === queued.kind && by.containerId === queued.containerId;
