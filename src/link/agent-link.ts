import type { Duplex } from 'node:stream';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import {
  type Decision,
  FrameParser,
  type FrameHeader,
  type FrameKind,
  decodeCredit,
  encodeCredit,
  encodeFrame,
  frameKinds,
} from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import {
  type AgentEvent,
  type AgentMessage,
  type Hello,
  type Method,
  type Params,
  type Result,
  type Welcome,
  agentMessageSchema,
  resultSchemas,
} from '#wire/messages.ts';
import { currentRequest } from '#host/log/request.ts';
import { encodeCall } from './encode-call.ts';
import { ByteStream } from './byte-stream.ts';
import { fixOfGuest } from './guest-fixes.ts';
import { Heartbeat } from './heartbeat.ts';
import type { Link, LinkOptions, LinkStream, LinkTraffic } from './link.ts';
import { SharedThread, Turns } from './turns.ts';

interface PendingCall {
  readonly method: string;
  /** Id of the client's call that it is a part of. */
  readonly request: string | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: PodvmError) => void;
}

/** Error of a call to an agent that is frozen. `what`: `Cannot ...`. */
export const frozen = (what: string): PodvmError =>
  new PodvmError('unavailable', `${what}: the pod is paused`, { fix: 'Let it continue with `podvm unpause`.' });

/**
 * Calls that the agent does not tell of by the client's call that they are a part of: those of probes and figures, which come
 * again and again. A kubelet makes one event of equal errors.
 */
const untold: ReadonlySet<Method> = new Set([
  ...(['startExec', 'signalExec', 'attach', 'resize', 'readFile', 'dial', 'ask', 'ping', 'list'] as const),
  ...(['stats', 'metrics', 'examine', 'examineMounts'] as const),
]);

/** This process' thread, shared by all its links. */
const thread = new SharedThread(performance.now());
/**
 * The only check for a dead guest. Calls wait as long as their callers: the caller limits how long making a container may
 * take on a busy host.
 */
const heartbeatOfAll = new Heartbeat();

/** One epoch of a channel: begins with the handshake and ends with the channel. */
export class AgentLink implements Link {
  readonly closed: Promise<Error>;
  readonly #channel: Duplex;
  readonly #epoch: number;
  readonly #callTimeoutMs: number;
  readonly #parser: FrameParser;
  readonly #pending = new Map<number, PendingCall>();
  readonly #streams = new Map<number, ByteStream>();
  readonly #welcomed = Promise.withResolvers<Welcome>();
  readonly #ended = Promise.withResolvers<Error>();
  #welcome: Welcome | undefined;
  #handler: ((event: AgentEvent) => void) | undefined;
  #early: AgentEvent[] = [];
  #lastId = 0;
  #isFrozen = false;
  /** When the agent last continued or was frozen. */
  #thawedMs = -Infinity;
  #failure: Error | undefined;
  readonly #over = new AbortController();
  /** When the agent last sent something valid. */
  #heardMs = performance.now();
  #watched: Disposable | undefined;
  readonly #turns = new Turns(thread, performance.now());
  #rest: NodeJS.Timeout | undefined;
  #receivedBytes = 0;
  #sentBytes = 0;
  #stalls = 0;
  #stalledMs = 0;

  constructor(channel: Duplex, epoch: number, callTimeoutMs: number) {
    this.#channel = channel;
    this.#epoch = epoch;
    this.#callTimeoutMs = callTimeoutMs;
    this.closed = this.#ended.promise;
    this.#welcomed.promise.catch(() => undefined); // reported to those that wait for the handshake
    this.#parser = new FrameParser(
      { decide: (header) => this.#decide(header), frame: (h, p) => this.#frame(h, p) },
      limits.maxOutputBytes,
    );
    channel.on('data', (chunk: Buffer) => this.#take(chunk));
    channel.once('error', (cause) => this.#end(cause));
    channel.once('close', () => this.#end());
  }

  get welcome(): Welcome {
    if (this.#welcome === undefined) throw new PodvmError('internal', 'Cannot describe the agent: no handshake yet');
    return this.#welcome;
  }

  get traffic(): LinkTraffic {
    return {
      receivedBytes: this.#receivedBytes,
      sentBytes: this.#sentBytes,
      stalls: this.#stalls,
      stalledSeconds: this.#stalledMs / 1000,
    };
  }

  /** Settles with the first welcome of this epoch, or the channel's end. */
  get welcomed(): Promise<Welcome> {
    return this.#welcomed.promise;
  }

  sendHello(versions: readonly number[]): void {
    const hello = { t: 'hello', versions: [...versions], maxDataBytes: limits.maxOutputBytes } satisfies Hello;
    this.#write(0, frameKinds.hello, Buffer.from(JSON.stringify(hello)));
  }

  /** Whether sent data, including hellos, has not left yet. */
  get isBackedUp(): boolean {
    return this.#channel.writableLength > 0;
  }

  /**
   * Sends bytes that are not a frame. An agent that still waits for the rest of an earlier connection's frame takes them for
   * it, and then looks for a header again.
   */
  sendPadding(bytes: number): void {
    this.#writeFrame(new Uint8Array(bytes));
  }

  setFrozen(isFrozen: boolean): void {
    this.#isFrozen = isFrozen;
    this.#thawedMs = performance.now(); // its time to answer begins again
    this.#heardMs = this.#thawedMs;
  }

  /** Time that the agent still has for a call that was sent before it was frozen, in `ms`. */
  get #grantedMs(): number {
    return this.#isFrozen ? this.#callTimeoutMs : this.#thawedMs + this.#callTimeoutMs - performance.now();
  }

  /** Ends the link when the agent no longer answers (`heartbeat.ts`). */
  watchLiveness({ pulse, heartbeat = heartbeatOfAll }: Pick<LinkOptions, 'pulse' | 'heartbeat'>): void {
    const heardMs = () => this.#heardMs;
    this.#watched = heartbeat.watch({
      get heardMs() {
        return heardMs();
      },
      isFrozen: () => this.#isFrozen,
      ping: () => void this.call('ping', {}, this.#over.signal).catch(() => undefined), // any answer counts
      ...(pulse === undefined ? {} : { pulse }),
      giveUp: (error) => this.#end(error),
    });
  }

  async call<M extends Method>(method: M, params: Params<M>, signal: AbortSignal): Promise<Result<M>> {
    const what = `Cannot call ${method} of the agent`;
    if (this.#failure !== undefined)
      throw new PodvmError('unavailable', `${what}: the link is down`, { cause: this.#failure });
    if (this.#isFrozen) throw frozen('Cannot reach the guest');
    if (this.#pending.size >= limits.maxPendingCalls) {
      throw new PodvmError('exhausted', `${what}: ${limits.maxPendingCalls} calls are pending`);
    }
    this.#lastId = this.#lastId === 0x7fff_ffff ? 1 : this.#lastId + 1;
    const id = this.#lastId;
    const request = untold.has(method) ? undefined : currentRequest();
    const body = encodeCall(id, method, params, request);
    const value = await this.#answer(id, { method, request }, body, signal);
    const result = v.safeParse(resultSchemas[method], value);
    if (!result.success) throw new PodvmError('corrupt', `${what}: its answer does not match the schema`);
    for (const stream of streamsNamedIn(params)) this.#streams.get(stream)?.open();
    return result.output;
  }

  async #answer(
    id: number,
    { method, request }: Pick<PendingCall, 'method' | 'request'>,
    body: Buffer,
    callers: AbortSignal,
  ): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const onAbort = () => {
      const isCancelled = callers.aborted && (callers.reason as Error | undefined)?.name !== 'TimeoutError';
      const reason = isCancelled ? 'cancelled' : 'it did not answer in time';
      reject(new PodvmError(isCancelled ? 'cancelled' : 'timeout', `Cannot call ${method} of the agent: ${reason}`));
    };
    this.#pending.set(id, { method, request, resolve, reject });
    // Uses a timer that is cleared: AbortSignal.timeout would hold memory for each call until it expires.
    const waitFor = (ms: number): NodeJS.Timeout =>
      setTimeout(() => {
        const grantedMs = this.#grantedMs;
        if (grantedMs <= 0) onAbort();
        else timer = waitFor(grantedMs);
      }, ms).unref();
    let timer = waitFor(this.#callTimeoutMs);
    callers.addEventListener('abort', onAbort, { once: true });
    if (callers.aborted) onAbort();
    else this.#writeCall(body);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      callers.removeEventListener('abort', onAbort);
      this.#pending.delete(id);
    }
  }

  openStream({ acknowledges = false } = {}): LinkStream {
    if (this.#failure !== undefined) throw new PodvmError('unavailable', 'Cannot open a stream: the link is down');
    if (this.#streams.size >= limits.maxStreams) {
      throw new PodvmError('exhausted', `Cannot open a stream: ${limits.maxStreams} are open`);
    }
    do this.#lastStream = this.#lastStream === 0x7fff_ffff ? 1 : this.#lastStream + 1;
    while (this.#streams.has(this.#lastStream));
    const wires = {
      data: (id: number, bytes: Uint8Array) => this.#write(id, frameKinds.data, bytes),
      end: (id: number) => this.#write(id, frameKinds.end),
      reset: (id: number) => this.#write(id, frameKinds.reset),
      credit: (id: number, bytes: number) => this.#writeFrame(encodeCredit(this.#epoch, id, bytes)),
      forget: (id: number) => this.#streams.delete(id),
    };
    const stream = new ByteStream(this.#lastStream, wires, acknowledges);
    this.#streams.set(stream.id, stream);
    return stream;
  }
  #lastStream = 0;

  onEvent(handler: (event: AgentEvent) => void): void {
    this.#handler = handler;
    for (const event of this.#early.splice(0)) handler(event);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#end();
    return Promise.resolve();
  }

  #take(chunk: Buffer): void {
    const beganMs = threadMs();
    this.#receivedBytes += chunk.length;
    this.#parser.push(chunk);
    this.#restFor(this.#turns.used(threadMs() - beganMs, performance.now()));
  }

  #restFor(ms: number): void {
    if (this.#failure !== undefined) return;
    if (ms === 0) {
      this.#channel.resume();
      return;
    }
    if (!this.#channel.isPaused()) this.#stalls += 1; // a longer pause is the same one
    this.#stalledMs += ms;
    this.#channel.pause();
    this.#rest = setTimeout(() => this.#restFor(this.#turns.rest(performance.now())), ms);
  }

  #decide(header: FrameHeader): Decision {
    if (header.kind === frameKinds.hello) return 'reject';
    if (header.kind === frameKinds.part) return 'skip'; // an agent sends no message of several parts
    return header.epoch === this.#epoch ? 'take' : 'skip';
  }

  #frame(header: FrameHeader, payload: Uint8Array): void {
    this.#heardMs = performance.now();
    const stream = this.#streams.get(header.stream);
    switch (header.kind) {
      case frameKinds.message:
        this.#message(payload);
        return;
      case frameKinds.data:
        if (stream === undefined) this.#refuse(header.stream);
        else stream.received(payload);
        return;
      case frameKinds.end:
        stream?.peerEnded();
        return;
      case frameKinds.reset:
        stream?.destroy();
        return;
      case frameKinds.credit:
        stream?.granted(decodeCredit(payload));
        return;
      case frameKinds.hello:
      case frameKinds.part:
        return; // never taken
    }
  }

  /** Resets a stream that a late call's caller has forgotten, so that the agent does not wait for credit forever. */
  #refuse(stream: number): void {
    const isFlood = this.#channel.writableLength > limits.maxMessageBytes; // the guest sends without reading
    if (!isFlood) this.#write(stream, frameKinds.reset);
  }

  #message(payload: Uint8Array): void {
    const message = parseMessage(payload);
    switch (message?.t) {
      case 'welcome':
        this.#welcome ??= message; // the hello is repeated, and its answer may be, too
        this.#welcomed.resolve(message);
        return;
      case 'result':
        this.#pending.get(message.id)?.resolve(message.value);
        return;
      case 'error': {
        const call = this.#pending.get(message.id);
        const fix = fixOfGuest(printable(message.message));
        call?.reject(
          new PodvmError(message.kind, printable(message.message), {
            cause: new Error(
              `in call ${call.method}${call.request === undefined ? '' : ` of request ${call.request}`}`,
            ),
            ...(fix === undefined ? {} : { fix }),
          }),
        );
        return;
      }
      case 'event':
        this.#event(message.event);
        return;
      case undefined:
        return; // a guest that sends invalid messages only harms itself: its calls time out
    }
  }

  #event(event: AgentEvent): void {
    if (this.#handler !== undefined) this.#handler(event);
    else if (this.#early.length < limits.maxQueuedEvents) this.#early.push(event);
  }

  /** Writes all parts at once, so that nothing else of the control stream comes between them. */
  #writeCall(body: Uint8Array): void {
    let at = 0;
    for (; body.length - at > limits.maxMessageBytes; at += limits.maxMessageBytes) {
      this.#write(0, frameKinds.part, body.subarray(at, at + limits.maxMessageBytes));
    }
    this.#write(0, frameKinds.message, body.subarray(at));
  }

  #write(stream: number, kind: FrameKind, payload?: Uint8Array): void {
    this.#writeFrame(encodeFrame(this.#epoch, stream, kind, payload));
  }

  #writeFrame(frame: Uint8Array): void {
    if (this.#failure !== undefined || this.#channel.destroyed) return;
    this.#sentBytes += frame.length;
    this.#channel.write(frame);
  }

  #end(cause?: Error): void {
    if (this.#failure !== undefined) return;
    const why = cause === undefined ? '' : `: ${cause.message}`;
    const isSilent = cause instanceof PodvmError && cause.kind === 'timeout';
    const failure = isSilent
      ? cause
      : new PodvmError('unavailable', `Cannot use the channel to the agent: it has ended${why}`, { cause });
    this.#failure = failure;
    this.#watched?.[Symbol.dispose]();
    this.#over.abort();
    clearTimeout(this.#rest);
    this.#turns.end();
    this.#channel.destroy();
    for (const call of this.#pending.values()) {
      call.reject(
        new PodvmError('unavailable', `Cannot call ${call.method} of the agent: the link went down`, {
          cause: failure,
        }),
      );
    }
    for (const stream of this.#streams.values()) stream.destroy();
    this.#welcomed.reject(failure);
    this.#ended.resolve(failure);
  }
}

/** CPU time of this thread: excludes the time that other processes take on a busy host. */
function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

function parseMessage(payload: Uint8Array): AgentMessage | undefined {
  try {
    const parsed = v.safeParse(agentMessageSchema, JSON.parse(Buffer.from(payload).toString('utf8')));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined; // not JSON
  }
}

const streamFields = new Set(['stdin', 'stdout', 'stderr', 'stream']);

/** The streams that a call names. */
function streamsNamedIn(params: unknown, depth = 0): readonly number[] {
  if (typeof params !== 'object' || params === null || depth > 2) return [];
  return Object.entries(params).flatMap(([key, value]) => {
    if (typeof value === 'number') return streamFields.has(key) && value > 0 ? [value] : [];
    return Array.isArray(value) ? [] : streamsNamedIn(value, depth + 1);
  });
}
