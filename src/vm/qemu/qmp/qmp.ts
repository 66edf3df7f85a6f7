import type { Duplex } from 'node:stream';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { type GuestText, printable } from '#base/guest-text.ts';
import { openDeadline } from '#host/deadline.ts';

/**
 * Client of the QEMU Machine Protocol (QEMU's docs/interop/qmp-spec.rst). The VMM runs hostile guests, so all input is
 * limited and checked. A message that is not QMP ends the connection, which rejects every pending call.
 */
const objectSchema = v.record(v.string(), v.unknown());
const greetingSchema = v.object({ QMP: v.object({ version: v.unknown() }) });
const returnSchema = v.object({ return: v.unknown(), id: v.number() });
const errorSchema = v.object({
  error: v.object({ class: v.string(), desc: v.string() }),
  id: v.optional(v.number()),
});
const eventSchema = v.object({
  event: v.pipe(v.string(), v.maxLength(64)),
  data: v.optional(objectSchema, {}),
});
const messageSchema = v.union([returnSchema, errorSchema, eventSchema, greetingSchema]);

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface QmpOptions {
  readonly onEvent: (event: QmpEvent) => void;
  /** Returns the last lines of QEMU's log, added to the error of a call when the connection ends. */
  readonly tail: () => Promise<readonly GuestText[]>;
}

export const qmpLimits = {
  /** Longest message in bytes; a longer one ends the connection. */
  maxMessageBytes: 1024 * 1024,
  maxPendingCalls: 64,
  /** Time for QEMU to answer, in `ms`. Callers set shorter deadlines of their own. */
  callTimeoutMs: 120_000,
} as const;

interface PendingCall {
  readonly command: string;
  readonly settle: (outcome: { readonly value: unknown } | { readonly error: PodvmError }) => void;
}

export class QmpClient {
  /** Settles with the reason when the connection has ended. */
  readonly closed: Promise<Error>;
  readonly #stream: Duplex;
  readonly #options: QmpOptions;
  readonly #pending = new Map<number, PendingCall>();
  readonly #greeting = Promise.withResolvers<void>();
  readonly #closing = Promise.withResolvers<Error>();
  #chunks: Buffer[] = [];
  #chunkBytes = 0;
  #lastId = 0;
  #end: Error | undefined;

  /**
   * Takes over the stream and negotiates. Errors: `corrupt`, `unavailable`, `timeout`; the stream is then destroyed.
   */
  static async open(stream: Duplex, options: QmpOptions, signal: AbortSignal): Promise<QmpClient> {
    const client = new QmpClient(stream, options);
    const abort = () => client.#fail(new PodvmError('cancelled', 'Cannot negotiate with QEMU: cancelled'));
    signal.addEventListener('abort', abort, { once: true });
    try {
      if (signal.aborted) abort();
      await client.#greeting.promise;
      await client.execute('qmp_capabilities', {}, signal);
      return client;
    } catch (error) {
      client.close();
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  private constructor(stream: Duplex, options: QmpOptions) {
    this.#stream = stream;
    this.#options = options;
    this.closed = this.#closing.promise;
    this.#greeting.promise.catch(() => undefined);
    stream.on('data', (chunk: Buffer) => this.#take(chunk));
    stream.on('error', (cause) => this.#fail(new PodvmError('unavailable', 'QEMU has ended', { cause })));
    stream.on('close', () => this.#fail(new PodvmError('unavailable', 'QEMU closed the control channel')));
    stream.on('end', () => this.#fail(new PodvmError('unavailable', 'QEMU closed the control channel')));
  }

  /**
   * Runs one command and returns its result, unchecked.
   * Errors: `internal` with QEMU's message for a refused command, `unavailable` when QEMU ends, `timeout`, `cancelled`.
   */
  async execute(command: string, args: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<unknown> {
    const failure = new Error(`QMP ${command}`); // created here so that its stack shows the caller
    const refuse = (error: PodvmError, tail: readonly GuestText[]) =>
      new PodvmError(error.kind, `Cannot run QMP ${command}: ${error.message}`, { cause: failure, tail });
    if (this.#end !== undefined) {
      throw refuse(new PodvmError('unavailable', this.#end.message), await this.#options.tail());
    }
    if (this.#pending.size >= qmpLimits.maxPendingCalls) {
      throw refuse(new PodvmError('exhausted', `more than ${qmpLimits.maxPendingCalls} calls are pending`), []);
    }
    const id = (this.#lastId += 1);
    using deadline = openDeadline(qmpLimits.callTimeoutMs, signal);
    const either = deadline.signal;
    const outcome = await new Promise<{ readonly value: unknown } | { readonly error: PodvmError }>((resolve) => {
      const abort = () =>
        settle({
          error: signal.aborted
            ? new PodvmError('cancelled', 'cancelled')
            : new PodvmError('timeout', `no answer after ${qmpLimits.callTimeoutMs} ms`),
        });
      const settle: PendingCall['settle'] = (result) => {
        this.#pending.delete(id);
        either.removeEventListener('abort', abort);
        resolve(result);
      };
      this.#pending.set(id, { command, settle });
      either.addEventListener('abort', abort, { once: true });
      if (either.aborted) abort();
      else this.#stream.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
    if ('value' in outcome) return outcome.value;
    throw refuse(outcome.error, outcome.error.kind === 'unavailable' ? await this.#options.tail() : []);
  }

  /** Ends the connection. Pending calls are rejected with `unavailable`. */
  close(): void {
    this.#fail(new PodvmError('unavailable', 'the control channel was closed'));
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    while (this.#end === undefined) {
      const newline = rest.indexOf(0x0a);
      const part = newline < 0 ? rest : rest.subarray(0, newline);
      this.#chunkBytes += part.length;
      if (this.#chunkBytes > qmpLimits.maxMessageBytes) {
        this.#fail(new PodvmError('corrupt', `QEMU sent a message above ${qmpLimits.maxMessageBytes} bytes`));
        return;
      }
      if (part.length > 0) this.#chunks.push(part);
      if (newline < 0) return;
      const line = Buffer.concat(this.#chunks).toString('utf8').trim();
      this.#chunks = [];
      this.#chunkBytes = 0;
      if (line !== '') this.#handle(line);
      rest = rest.subarray(newline + 1);
    }
  }

  #handle(line: string): void {
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch (cause) {
      this.#fail(new PodvmError('corrupt', `QEMU sent invalid JSON: ${printable(line, 80)}`, { cause }));
      return;
    }
    const parsed = v.safeParse(messageSchema, json);
    if (!parsed.success) {
      this.#fail(new PodvmError('corrupt', `QEMU sent an invalid QMP message: ${printable(line, 80)}`));
      return;
    }
    const message = parsed.output;
    if ('QMP' in message) this.#greeting.resolve();
    else if ('event' in message) this.#options.onEvent(message);
    else if ('error' in message) this.#answerError(message);
    else this.#pending.get(message.id)?.settle({ value: message.return }); // ignores answers of cancelled calls
  }

  #answerError(message: v.InferOutput<typeof errorSchema>): void {
    const error = new PodvmError('internal', printable(message.error.desc));
    if (message.id === undefined) this.#fail(error);
    else this.#pending.get(message.id)?.settle({ error });
  }

  #fail(reason: Error): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    this.#chunks = [];
    this.#stream.destroy();
    for (const call of this.#pending.values()) {
      call.settle({ error: reason instanceof PodvmError ? reason : new PodvmError('unavailable', reason.message) });
    }
    this.#greeting.reject(reason);
    this.#closing.resolve(reason);
  }
}
