import { headerBytes } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import type { AgentStream, StreamUser } from '../channel/stream.ts';
import { again, ready, type Clock, type Descriptors, type Timer } from '#engine/engine.ts';
import type { SentOutput } from './sent-output.ts';

/** Shared by all pumps: handlers are never re-entered, and a frame that cannot be written at once is copied. */
let buffer = new Uint8Array(headerBytes + limits.maxDataBytes);

/** Room for that many bytes in `buffer`, which grows for the first host that takes larger frames. */
function makeRoom(bytes: number): number {
  if (buffer.length < headerBytes + bytes) buffer = new Uint8Array(headerBytes + limits.maxOutputBytes);
  return bytes;
}

const nothing: Uint8Array = new Uint8Array(0);
/**
 * Time for which output is left in the pipe after two small pieces in a shorter time. Programs write lines in pieces of
 * some KB, and a frame, with the wake-up for it, costs more than its bytes. The pipe holds what a fast program writes
 * meanwhile; the first piece after a pause is never delayed.
 */
const gatherMs = 1;
/** Bytes that are left in the pipe in that time by a program that writes much: the next piece is left there, too. */
const muchBytes = 4096;

export type OutputParts = Descriptors & Pick<Clock, 'setTimer' | 'clearTimer' | 'monotonicMs'>;

/**
 * Pumps from a descriptor (a process' output, a socket) to a stream. Reads only as much as the host accepts, so that a
 * process waits for a slow host; while the host is away it also waits, for `attach`. When the host forgets the stream,
 * output is read and dropped, so that the process continues. Sent output is kept in `sent`, if given, until the host
 * has stored it, and outlives the descriptor.
 */
export class OutputPump {
  readonly #parts: OutputParts;
  readonly #onEnd: () => void;
  readonly #sent: SentOutput | undefined;
  readonly #gathers: boolean;
  #fd: number;
  #stream: AgentStream | undefined;
  /** Output to send again on this stream, before new output. */
  #again = nothing;
  #isDropping = false;
  #isWatching = false;
  #lastReadMs = -Infinity;
  /** Ends the time for which output is left in the pipe. */
  #gathering: Timer | undefined;
  #hasGathered = false;
  #beside: OutputPump | undefined;

  /**
   * Takes ownership of `fd`, which must not block. `onEnd`: called when the output has ended and `fd` is closed. `gathers`: false
   * for a terminal, which holds only 4 KiB, so that a program that writes fast would wait for each piece.
   */
  constructor(
    parts: OutputParts,
    fd: number,
    onEnd: () => void = () => {},
    { sent, gathers = true }: { readonly sent?: SentOutput | undefined; readonly gathers?: boolean } = {},
  ) {
    this.#parts = parts;
    this.#fd = fd;
    this.#onEnd = onEnd;
    this.#sent = sent;
    this.#gathers = gathers;
  }

  /** Undefined: drops output. `from`: bytes that the stream's reader has; absent: it only wants new output. */
  attach(stream: AgentStream | undefined, from?: number): void {
    this.#again = this.#sent?.after(from) ?? nothing;
    this.#stream = stream;
    this.#isDropping = stream === undefined;
    this.#update();
  }

  /** Errors: those of `SentOutput.after`. */
  checkFrom(from: number): void {
    this.#sent?.check(from);
  }

  /** The host has stored this many more bytes. */
  acknowledged(bytes: number): void {
    this.#sent?.acknowledge(bytes);
  }

  /** Called by the stream's user. */
  writable(): void {
    this.#update();
  }

  streamGone(why: 'reset' | 'away'): void {
    this.#stream = undefined;
    this.#isDropping = why === 'reset';
    this.#update();
  }

  close(): void {
    this.#again = nothing;
    if (this.#fd >= 0) {
      const fd = this.#fd;
      this.#fd = -1;
      this.#parts.close(fd);
      this.#onEnd();
    }
    this.#endStream();
  }

  #endStream(): void {
    this.#stream?.end();
    this.#stream = undefined;
  }

  #sendAgain(): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    while (this.#again.length > 0) {
      const length = makeRoom(Math.min(this.#again.length, stream.sendable));
      if (length === 0) return;
      buffer.set(this.#again.subarray(0, length), headerBytes);
      stream.send(buffer, length);
      this.#again = this.#again.subarray(length);
    }
  }

  #update(): void {
    this.#sendAgain();
    if (this.#fd < 0) {
      if (this.#again.length === 0) this.#endStream();
      return;
    }
    const isReady = this.#again.length === 0;
    const wanted =
      this.#gathering === undefined && (this.#isDropping || (isReady && (this.#stream?.sendable ?? 0) > 0));
    if (wanted === this.#isWatching) return;
    this.#isWatching = wanted;
    if (wanted) this.#parts.watch(this.#fd, ready.readable, () => this.#read());
    else this.#parts.unwatch(this.#fd);
  }

  /** Names the other output of the same process: what that has left in its pipe is read before a later line of this one. */
  setBeside(other: OutputPump): void {
    this.#beside = other;
  }

  #read(): void {
    this.#beside?.endGathering();
    this.#readOnce();
  }

  /** Reads what was left in the pipe. */
  endGathering(): void {
    if (this.#gathering === undefined) return;
    this.#parts.clearTimer(this.#gathering);
    this.#gathering = undefined;
    if (this.#fd >= 0) this.#readOnce();
  }

  #readOnce(): void {
    const room = makeRoom(this.#isDropping ? limits.maxDataBytes : (this.#stream?.sendable ?? 0));
    if (room > 0) {
      let bytes: number;
      try {
        bytes = this.#parts.read(this.#fd, buffer, headerBytes, room);
      } catch {
        bytes = 0; // EIO: the terminal's other end is closed; ECONNRESET: so is the socket's
      }
      if (bytes === 0) {
        this.close();
        return;
      }
      if (bytes !== again) {
        this.#took(bytes);
        if (this.#gathers) this.#gatherAfter(bytes, room);
      }
    }
    this.#update();
  }

  #gatherAfter(bytes: number, room: number): void {
    const nowMs = this.#parts.monotonicMs();
    const isSoon = nowMs - this.#lastReadMs < gatherMs || (this.#hasGathered && bytes >= muchBytes);
    this.#lastReadMs = nowMs;
    this.#hasGathered = false;
    if (bytes === room || !isSoon) return;
    this.#gathering = this.#parts.setTimer(gatherMs, () => {
      this.#gathering = undefined;
      this.#hasGathered = true;
      this.#update();
    });
  }

  #took(bytes: number): void {
    if (this.#stream === undefined) {
      this.#sent?.skip(bytes);
      return;
    }
    this.#sent?.push(buffer.slice(headerBytes, headerBytes + bytes));
    this.#stream.send(buffer, bytes);
  }
}

/** Pumps from a stream to a descriptor: a process' input, a socket. */
export class InputPump {
  readonly #parts: Descriptors;
  readonly #onEnd: (fd: number) => void;
  #fd: number;
  #stream: AgentStream | undefined;
  #queue: Uint8Array[] = [];
  #hasEnded = false;

  /** Takes ownership of `fd`, which must not block. Calls `onEnd` before the descriptor is closed. */
  constructor(parts: Descriptors, fd: number, onEnd: (fd: number) => void = () => {}) {
    this.#parts = parts;
    this.#fd = fd;
    this.#onEnd = onEnd;
  }

  attach(stream: AgentStream | undefined): void {
    this.#stream = stream;
  }

  data(bytes: Uint8Array): void {
    if (this.#fd < 0) {
      this.#stream?.consumed(bytes.length); // the reader is gone: drops the bytes
      return;
    }
    let done = 0;
    if (this.#queue.length === 0) done = this.#write(bytes);
    if (done < 0 || done === bytes.length) return;
    this.#queue.push(bytes.slice(done)); // bounded by the stream's credit
    if (this.#queue.length === 1) this.#parts.watch(this.#fd, ready.writable, () => this.#flush());
  }

  /** Closes the descriptor once everything is written. */
  end(): void {
    this.#hasEnded = true;
    if (this.#queue.length === 0) this.close();
  }

  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    this.#queue = [];
    this.#onEnd(fd);
    this.#parts.close(fd);
  }

  #flush(): void {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const done = this.#write(next);
      if (done < 0) return;
      if (done < next.length) {
        this.#queue[0] = next.subarray(done);
        return;
      }
      this.#queue.shift();
    }
    this.#parts.unwatch(this.#fd);
    if (this.#hasEnded) this.close();
  }

  /** Returns bytes written; negative when the reader is gone and the descriptor closed. */
  #write(bytes: Uint8Array): number {
    let done: number;
    try {
      done = this.#parts.write(this.#fd, bytes);
    } catch {
      this.#stream?.consumed(bytes.length);
      this.close();
      return -1;
    }
    if (done === again) return 0;
    this.#stream?.consumed(done);
    return done;
  }
}

/** A stream used only for output. Data from the host is dropped. */
export const outputUser = (pump: OutputPump, stream: AgentStream): StreamUser => ({
  data: (bytes) => stream.consumed(bytes.length),
  end: () => {},
  gone: (why) => pump.streamGone(why),
  writable: () => pump.writable(),
  acknowledged: (bytes) => pump.acknowledged(bytes),
});

/** A stream used only for input. A reset ends the input; while the host is away it stays open. */
export const inputUser = (pump: InputPump): StreamUser => ({
  data: (bytes) => pump.data(bytes),
  end: () => pump.end(),
  gone: (why) => {
    if (why === 'reset') pump.end();
    else pump.attach(undefined);
  },
  writable: () => {},
  acknowledged: () => {},
});
