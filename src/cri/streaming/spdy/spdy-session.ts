import type { Duplex } from 'node:stream';
import { PodvmError } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import { controlFrame, dataHeader, type Frame, FrameReader, types } from './frame.ts';
import { HeaderDeflater, type Headers } from './header-block.ts';
import { spdyLimits } from './limits.ts';
import { SendWindows } from './send-windows.ts';
import { brokenRule, goAway, reset } from './spdy-error.ts';
import { SpdyStream, type StreamWires } from './spdy-stream.ts';

export interface SessionParts {
  readonly clock: Clock;
  /** Returns whether the client may open a stream with these headers. */
  readonly accepts: (headers: Headers) => boolean;
  /** Called when a stream was opened and acknowledged. */
  readonly onStream: (stream: SpdyStream) => void;
  /** Called for data in either direction. */
  readonly onActivity: () => void;
}

/** Interval of pings, in `ms`. They detect a client that is gone while nothing is read from it. */
const pingMs = 15_000;
/** Time for a client to close its end after ours, in `ms`. */
const closeMs = 5_000;
const windowUpdateBytes = 32 * 1024;

/**
 * The server's end of a SPDY/3.1 session over any byte transport. The client opens streams. A client that sends too
 * fast is slowed by not reading from the transport; one that does not read blocks the streams' writers. A protocol
 * violation ends the session with all its streams.
 */
export class SpdySession {
  readonly #transport: Duplex;
  readonly #parts: SessionParts;
  readonly #reader = new FrameReader();
  readonly #deflater = new HeaderDeflater();
  readonly #windows = new SendWindows();
  readonly #streams = new Map<number, SpdyStream>();
  readonly #unacknowledged = new Map<number, number>();
  readonly #closed = Promise.withResolvers<void>();
  #cancelPing = () => {};
  #lastStreamId = 0;
  #refusals = 0;
  #queuedBytes = 0;
  #pingId = 0;
  #isLeaving = false;
  #isOver = false;
  /** Reason of a session's end that the client did not request. */
  failure: PodvmError | undefined;

  constructor(transport: Duplex, parts: SessionParts) {
    this.#transport = transport;
    this.#parts = parts;
    transport.on('data', (chunk: Buffer) => this.#take(chunk));
    transport.once('end', () => this.#over());
    transport.once('error', () => this.#over());
    transport.once('close', () => this.#over());
    if (transport.destroyed) this.#over();
    else this.#ping();
  }

  /** Resolves when the session has ended and its transport is closed; never rejects. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Ends the session: open streams are reset, then the client has a short time to close its end. */
  async close(): Promise<void> {
    if (!this.#isOver) {
      for (const stream of this.#streams.values()) stream.destroy();
      this.#say(controlFrame(types.goAway, [this.#lastStreamId, goAway.ok]));
      this.#transport.end();
      this.#transport.resume();
      const cancel = this.#parts.clock.after(closeMs, () => this.#over());
      void this.closed.then(cancel);
    }
    await this.closed;
  }

  /** Ends the session immediately. */
  destroy(): void {
    this.#over();
  }

  #take(chunk: Buffer): void {
    if (this.#isOver) return;
    try {
      for (const frame of this.#reader.read(chunk)) {
        this.#obey(frame);
        if (this.#isOver) return;
      }
    } catch (error) {
      this.#fail(
        error instanceof PodvmError ? error : new PodvmError('internal', 'Cannot read SPDY', { cause: error }),
      );
      return;
    }
    this.#pauseOrResume();
  }

  #obey(frame: Frame): void {
    switch (frame.kind) {
      case 'synStream':
        this.#open(frame);
        return;
      case 'data':
        this.#data(frame.streamId, frame.bytes, frame.fin);
        return;
      case 'headers':
        if (frame.fin) this.#data(frame.streamId, Buffer.alloc(0), true);
        return;
      case 'rstStream':
        this.#streams.get(frame.streamId)?.peerGone(new PodvmError('cancelled', 'the client left the stream'));
        return;
      case 'windowUpdate':
        this.#grant(frame.streamId, frame.deltaBytes);
        return;
      case 'settings':
        if (frame.initialWindowBytes !== undefined) this.#windows.setInitial(frame.initialWindowBytes);
        this.#windowsGrew();
        return;
      case 'ping':
        if (frame.id % 2 === 1) this.#say(controlFrame(types.ping, [frame.id])); // an even id answers our ping
        return;
      case 'goAway':
        this.#isLeaving = true;
        return;
      case 'synReply':
        throw brokenRule('an answer to a stream that we did not open');
    }
  }

  #open({ streamId, headers, fin }: Extract<Frame, { kind: 'synStream' }>): void {
    if (streamId % 2 === 0 || streamId <= this.#lastStreamId) throw brokenRule(`a new stream with number ${streamId}`);
    this.#lastStreamId = streamId;
    if (this.#isLeaving) return;
    if (this.#streams.size >= spdyLimits.streams || !this.#parts.accepts(headers)) {
      this.#refuse(streamId);
      return;
    }
    const stream = new SpdyStream(streamId, headers, this.#wires);
    this.#streams.set(streamId, stream);
    this.#windows.open(streamId);
    // Sent first: moby/spdystream drops data that arrives before it.
    this.#say(controlFrame(types.synReply, [streamId], this.#deflater.deflate(new Map())));
    if (fin) stream.peerEnded();
    this.#parts.onStream(stream);
  }

  #refuse(streamId: number): void {
    this.#refusals += 1;
    if (this.#refusals > spdyLimits.refusals) throw brokenRule(`more than ${spdyLimits.refusals} refused streams`);
    this.#say(controlFrame(types.rstStream, [streamId, reset.refused]));
  }

  #data(streamId: number, bytes: Buffer, fin: boolean): void {
    if (streamId > this.#lastStreamId) throw brokenRule(`data on stream ${streamId}, which was never opened`);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return; // ended here, but not yet for the client
    if (stream.hasPeerEnded) {
      this.#say(controlFrame(types.rstStream, [streamId, reset.closed]));
      stream.peerGone(brokenRule(`data on stream ${streamId} after its end`));
      return;
    }
    this.#parts.onActivity();
    stream.received(bytes);
    if (fin) stream.peerEnded();
  }

  #grant(streamId: number, deltaBytes: number): void {
    if (!this.#windows.grant(streamId, deltaBytes)) {
      if (streamId === 0) throw brokenRule('a window of more than 2 GiB');
      this.#say(controlFrame(types.rstStream, [streamId, reset.flowControl]));
      this.#streams.get(streamId)?.peerGone(brokenRule('a window of more than 2 GiB'));
    }
    this.#windowsGrew();
  }

  #windowsGrew(): void {
    for (const stream of [...this.#streams.values()]) stream.windowGrew();
  }

  readonly #wires: StreamWires = {
    available: (streamId) => Math.min(spdyLimits.dataFrameBytes, this.#windows.available(streamId)),
    data: (streamId, bytes, taken) => {
      this.#parts.onActivity();
      this.#windows.spend(streamId, bytes.length);
      this.#transport.write(dataHeader(streamId, bytes.length, false));
      this.#transport.write(bytes, () => {
        taken();
        this.#streams.get(streamId)?.windowGrew(); // continues data of more than one frame
      });
    },
    end: (streamId) => this.#say(dataHeader(streamId, 0, true)),
    reset: (streamId, status) => this.#say(controlFrame(types.rstStream, [streamId, status])),
    queued: (deltaBytes) => {
      this.#queuedBytes += deltaBytes;
    },
    consumed: (streamId, bytes) => {
      this.#acknowledge(streamId, bytes);
      this.#acknowledge(0, bytes);
      this.#pauseOrResume();
    },
    forget: (streamId) => {
      this.#streams.delete(streamId);
      this.#windows.forget(streamId);
      this.#unacknowledged.delete(streamId);
      this.#pauseOrResume();
    },
  };

  /** Acknowledges read data. Kubernetes' clients do not need it, but one that uses windows would block without it. */
  #acknowledge(streamId: number, bytes: number): void {
    const sum = (this.#unacknowledged.get(streamId) ?? 0) + bytes;
    this.#unacknowledged.set(streamId, sum < windowUpdateBytes ? sum : 0);
    if (sum >= windowUpdateBytes) this.#say(controlFrame(types.windowUpdate, [streamId, sum]));
  }

  #pauseOrResume(): void {
    if (this.#isOver) return;
    const isFull =
      this.#queuedBytes > spdyLimits.sessionQueueBytes ||
      [...this.#streams.values()].some((stream) => stream.queuedBytes > spdyLimits.streamQueueBytes);
    if (isFull) this.#transport.pause();
    else if (this.#transport.isPaused()) this.#transport.resume();
  }

  #say(bytes: Buffer): void {
    if (this.#isOver || !this.#transport.writable) return;
    this.#transport.write(bytes);
    if (this.#transport.writableLength > spdyLimits.backlogBytes)
      this.#fail(new PodvmError('exhausted', 'Cannot continue the SPDY session: the client does not read its answers'));
  }

  #ping(): void {
    this.#cancelPing = this.#parts.clock.after(pingMs, () => {
      this.#pingId = (this.#pingId + 2) & 0x7fff_fffe;
      this.#say(controlFrame(types.ping, [this.#pingId === 0 ? 2 : this.#pingId]));
      if (!this.#isOver) this.#ping();
    });
  }

  #fail(error: PodvmError): void {
    if (this.#isOver) return;
    this.failure = error;
    this.#transport.write(controlFrame(types.goAway, [this.#lastStreamId, goAway.protocolError]));
    this.#over();
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancelPing();
    const gone = new PodvmError('cancelled', 'the client is gone');
    for (const stream of this.#streams.values()) stream.peerGone(gone);
    const { destroyed, closed } = this.#transport;
    if (destroyed && closed) this.#closed.resolve();
    else {
      this.#transport.once('close', () => this.#closed.resolve());
      this.#transport.destroy();
    }
  }
}
