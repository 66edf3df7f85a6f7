import { printable, rawText } from '#base/guest-text.ts';
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import * as v from 'valibot';
import { decodeCredit, encodeFrame, type FrameHeader, type FrameKind, FrameParser, frameKinds } from '#wire/frame.ts';
import { limits } from '#wire/limits.ts';
import { type AgentMessage, agentMessageSchema, type Method, resultSchemas } from '#wire/messages.ts';

const answerMs = 10_000;
/** Timeout of the answer to a call that may have been damaged on its way, in `ms`. */
const unsureMs = 10;
/** Messages of errors that come from a bug of the agent, not from one of its checks. */
const ownFault = /undefined|not a function|of null|not iterable|out of memory|stack overflow|interrupted/;

/** Credit of one stream, as both ends know it. */
interface Known {
  /** Bytes that the agent may still send, and may still grant. */
  mayReceive: number;
  mayBeGranted: number;
}

/**
 * The host's end of the channel to a fuzzed agent: sends arbitrary bytes, and checks the answers by the protocol,
 * unless its own traffic was damaged and might mean anything.
 */
export class ScriptedHost {
  readonly #process: ChildProcess;
  readonly #channel: Duplex;
  readonly ended: Promise<unknown>;
  readonly #parser = new FrameParser({ decide: () => 'take', frame: (header, bytes) => this.#heard(header, bytes) });
  /** Methods that were called with each id. A host that uses an id again gets an answer to each call. */
  readonly #methods = new Map<number, readonly string[]>();
  readonly #answers = new Map<number, PromiseWithResolvers<AgentMessage>>();
  readonly #streams = new Map<number, Known>();
  #welcomed = Promise.withResolvers<void>();
  #faults: string[] = [];
  #said = '';
  epoch = 0;
  lastId = 0;
  /** True while everything that was sent since the last greeting follows the protocol. */
  isStrict = false;

  constructor(process: ChildProcess, channel: Duplex) {
    this.#process = process;
    this.#channel = channel;
    this.ended = once(process, 'close').then(() => {
      for (const answer of this.#answers.values()) answer.reject(new Error(`the agent has ended: ${this.#said}`));
      this.#welcomed.reject(new Error(`the agent has ended: ${this.#said}`));
    });
    process.once('exit', () => channel.destroy()); // one that is not read would never close
    this.#welcomed.promise.catch(() => undefined);
    process.stderr?.on('data', (bytes: Buffer) => (this.#said += bytes.toString()));
    channel.on('data', (bytes: Buffer) => this.#parser.push(bytes));
    channel.on('error', () => undefined);
  }

  get hasEnded(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  get exitCode(): number | null {
    return this.#process.exitCode;
  }

  send(bytes: Uint8Array): void {
    if (!this.#channel.destroyed) this.#channel.write(bytes);
  }

  read(on: boolean): void {
    if (on) this.#channel.resume();
    else this.#channel.pause();
  }

  /** Throws the faults so far. */
  check(): void {
    const [fault] = this.#faults;
    assert.equal(this.#said, '');
    assert.equal(fault, undefined);
  }

  /** Connects as the real host does: sends bytes for a frame that was left torn, and hello until there is an answer. */
  async greet(): Promise<void> {
    this.read(true);
    this.isStrict = false;
    const wasTorn = this.epoch !== 0;
    this.newEpoch();
    const welcomed = this.#welcomed;
    const hello = encodeFrame(this.epoch, 0, frameKinds.hello, Buffer.from('{"t":"hello","versions":[1]}'));
    const deadline = AbortSignal.timeout(answerMs);
    for (let said = 0; ; said += 1) {
      if (wasTorn && said === 1) this.send(Buffer.alloc(limits.maxMessageBytes + 20));
      this.send(hello);
      const isLate = await Promise.race([welcomed.promise.then(() => false), elapsed(said === 0 ? 20 : 50)]);
      if (!isLate) break;
      assert.ok(!deadline.aborted, 'hello is answered');
    }
    this.#faults = [];
    this.isStrict = true;
  }

  /** Discards all earlier state. */
  newEpoch(): void {
    this.epoch += 1;
    this.#streams.clear();
    this.#methods.clear();
    for (const answer of this.#answers.values()) answer.reject(new Error('the connection is another'));
    this.#answers.clear();
    this.#welcomed = Promise.withResolvers();
    this.#welcomed.promise.catch(() => undefined);
  }

  /** Expects the answer of a call; the caller sends its bytes. */
  expect(id: number, method: string, params: unknown): void {
    this.#methods.set(id, [...(this.#methods.get(id) ?? []), method]);
    if (method === 'dial' && typeof params === 'object' && params !== null && 'stream' in params)
      this.#open(Number(params.stream));
  }

  granted(stream: number, bytes: number): void {
    const known = this.#streams.get(stream);
    if (known !== undefined) known.mayReceive += bytes;
  }

  sent(stream: number, bytes: number): void {
    const known = this.#streams.get(stream);
    if (known !== undefined) known.mayBeGranted += bytes;
  }

  /** Returns the answer; undefined if a new connection has replaced that of the call. Throws after the timeout. */
  async answerTo(id: number): Promise<AgentMessage | undefined> {
    const answer = this.#answers.get(id) ?? Promise.withResolvers<AgentMessage>();
    this.#answers.set(id, answer);
    const { epoch } = this;
    const got = await Promise.race([
      answer.promise.catch(() => undefined),
      elapsed(this.isStrict ? answerMs : unsureMs),
    ]);
    if (got !== true) return got;
    if (epoch === this.epoch && this.isStrict && !this.hasEnded)
      assert.fail(`no answer to ${this.#methods.get(id)?.join(', ')}`);
    return undefined;
  }

  /** One call and its answer. */
  async call(method: Method, params: unknown): Promise<AgentMessage | undefined> {
    const id = (this.lastId += 1);
    this.expect(id, method, params);
    this.send(
      encodeFrame(this.epoch, 0, frameKinds.message, Buffer.from(JSON.stringify({ t: 'call', id, method, params }))),
    );
    return await this.answerTo(id);
  }

  /** Closes the channel. Asserts that the agent ends without errors. */
  async leave(): Promise<void> {
    this.#channel.destroy();
    await this.ended;
    assert.equal(this.#said, '');
    assert.equal(this.exitCode, 0);
  }

  #open(stream: number): void {
    const { mayReceive = 0, mayBeGranted = 0 } = this.#streams.get(stream) ?? {};
    this.#streams.set(stream, { mayReceive: mayReceive + limits.streamWindowBytes, mayBeGranted });
  }

  #fault(what: string): void {
    if (this.isStrict) this.#faults.push(what);
  }

  #heard(header: FrameHeader, bytes: Uint8Array): void {
    if (this.#parser.garbageBytes > 0) this.#fault(`${this.#parser.garbageBytes} bytes of no frame`);
    this.#parser.garbageBytes = 0;
    if (header.epoch !== this.epoch) return;
    if (header.kind === frameKinds.message) this.#message(Buffer.from(bytes).toString());
    else this.#ofStream(header.kind, header.stream, bytes);
  }

  #ofStream(kind: FrameKind, stream: number, bytes: Uint8Array): void {
    const known = this.#streams.get(stream);
    if (known === undefined) {
      this.#fault(`a frame of kind ${kind} on stream ${stream}, which was not asked for`);
      return;
    }
    if (kind === frameKinds.data) known.mayReceive -= bytes.length;
    else if (kind === frameKinds.credit) known.mayBeGranted -= decodeCredit(bytes);
    else if (kind !== frameKinds.end && kind !== frameKinds.reset) this.#fault(`a frame of kind ${kind}`);
    if (known.mayReceive < 0) this.#fault(`stream ${stream} got ${-known.mayReceive} bytes more than it had credit`);
    if (known.mayBeGranted < 0) this.#fault(`stream ${stream} was granted more than it had sent`);
  }

  #message(text: string): void {
    const parsed = v.safeParse(agentMessageSchema, JSON.parse(text));
    if (!parsed.success) {
      this.#fault(`no message of the agent's: ${text.slice(0, 200)}`);
      return;
    }
    const message = parsed.output;
    if (message.t === 'welcome') this.#welcomed.resolve();
    if (message.t !== 'result' && message.t !== 'error') return;
    const methods = this.#methods.get(message.id);
    if (methods === undefined) this.#fault(`an answer to ${message.id}, which was not asked`);
    else if (
      message.t === 'error' &&
      ownFault.test(rawText(message.message)) &&
      !/invalid parameters for the agent/.test(rawText(message.message))
    )
      this.#fault(`${methods.join(', ')}: ${printable(message.message)}`);
    else if (message.t === 'result' && !methods.some((method) => isResult(method, message.value)))
      this.#fault(`${methods.join(', ')} has the result ${JSON.stringify(message.value)}`);
    const answer = this.#answers.get(message.id) ?? Promise.withResolvers<AgentMessage>();
    this.#answers.set(message.id, answer);
    answer.promise.catch(() => undefined);
    answer.resolve(message);
  }
}

function isResult(method: string, value: unknown): boolean {
  const schemas: Readonly<Record<string, v.GenericSchema>> = resultSchemas;
  const schema = Object.hasOwn(schemas, method) ? schemas[method] : undefined;
  return schema !== undefined && v.is(schema, value);
}

/** True, after that many `ms`. */
function elapsed(ms: number): Promise<true> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(true), ms).unref();
  });
}
