import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { kindOfCode } from '#base/status-codes.ts';
import { openDeadline } from '#host/deadline.ts';
import type { Log } from '#host/log.ts';
import { maxMessageBytes } from '../rpc/serve-grpc.ts';
import { EncodedAnswer } from '../rpc/service.ts';

/** The settings `delegate` and `delegateNamespaces`. */
export interface DelegateSettings {
  /** Path of the unix socket on which the other runtime serves CRI. */
  readonly socketPath: string;
  /** Namespaces whose pods it may run, or `*`. */
  readonly namespaces: readonly string[];
}

/** A verb of CRI, with the schemas of its messages. */
export type Method<Input extends DescMessage = DescMessage, Output extends DescMessage = DescMessage> = Pick<
  DescMethod,
  'name' | 'parent'
> & { readonly input: Input; readonly output: Output };

/** Time to wait for what is only a part of an answer, such as of a list, in `ms`. */
const partTimeoutMs = 3000;
/** Pauses before a connection is tried again, in `ms`. */
const reconnectMs = { 'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 1000 };
/** The server of a unix socket has no name; servers in Go expect this one. */
const authority = 'localhost';
const maxDetailsChars = 1500;
/** How gRPC's client says that it cannot connect; only the middle is of use. */
const noConnection = /^No connection established\. Last error: (?:Error: )?(.*?)\. Resolution note: .*$/s;

/**
 * The other runtime, to which pods are forwarded that cannot be machines: a client of its CRI socket. It connects when it
 * is first called, and again after the runtime was restarted.
 */
export class Delegate implements Disposable {
  readonly settings: DelegateSettings;
  readonly #client: Client;
  readonly #log: Log;
  #isAway = false;

  constructor(settings: DelegateSettings, log: Log) {
    this.settings = settings;
    this.#log = log;
    this.#client = new Client(`unix:${settings.socketPath}`, credentials.createInsecure(), {
      'grpc.default_authority': authority,
      'grpc.max_receive_message_length': maxMessageBytes,
      'grpc.max_send_message_length': maxMessageBytes,
      ...reconnectMs,
    });
  }

  /**
   * Sends a request as it arrived, and returns the answer as it arrives, with fields that our schema does not know.
   * Errors: the runtime's own; `unavailable` while it is away; `corrupt` for an answer that the schema cannot read.
   */
  async forward(method: Method, request: Uint8Array, signal: AbortSignal): Promise<EncodedAnswer> {
    const bytes = await this.#call(method, request, signal);
    read(method, bytes);
    return new EncodedAnswer(bytes);
  }

  /** Sends a request, and returns the answer. Errors: as `forward`. */
  async ask<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    request: MessageInitShape<Input>,
    signal: AbortSignal,
  ): Promise<MessageShape<Output>> {
    return read(method, await this.#call(method, toBinary(method.input, create(method.input, request)), signal));
  }

  /** As `ask`, for a part of an answer about both runtimes, which does not wait long. Errors: also `timeout`. */
  async askPromptly<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    request: MessageInitShape<Input>,
    signal: AbortSignal,
  ): Promise<MessageShape<Output>> {
    using deadline = openDeadline(partTimeoutMs, signal);
    try {
      return await this.ask(method, request, deadline.signal);
    } catch (error) {
      signal.throwIfAborted();
      if (kindOf(error) === 'timeout') this.#is('away', error);
      throw error;
    }
  }

  /** As `askPromptly`, for an answer that is useful without this part: undefined for any error. */
  async askPart<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    request: MessageInitShape<Input>,
    signal: AbortSignal,
  ): Promise<MessageShape<Output> | undefined> {
    try {
      return await this.askPromptly(method, request, signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#log.debug('an answer lacks the part of the delegate', { verb: method.name, why: messageOf(error) });
      return undefined;
    }
  }

  /** Yields the answers of a verb that streams, until the signal aborts. Errors: as `forward`. */
  async *listen<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<Output>> {
    const empty = Buffer.alloc(0);
    const call = this.#client.makeServerStreamRequest(pathOf(method), asItIs, asItIs, empty, new Metadata());
    const cancel = () => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      for await (const bytes of call) yield read(method, bytes as Buffer); // SAFE: what the deserializer returns
    } catch (error) {
      signal.throwIfAborted();
      throw this.#errorOf(error as ServiceError); // SAFE: streams of gRPC fail with nothing else
    } finally {
      signal.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #call(method: Method, request: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const cancel = () => call.cancel();
      const bytes = Buffer.from(request);
      const call = this.#client.makeUnaryRequest(pathOf(method), asItIs, asItIs, bytes, (error, answer) => {
        signal.removeEventListener('abort', cancel);
        if (error === null) {
          this.#is('here');
          resolve(answer ?? empty);
        } else reject(signal.aborted ? (signal.reason as Error) : this.#errorOf(error)); // SAFE: our calls abort with an Error
      });
      signal.addEventListener('abort', cancel, { once: true });
    });
  }

  #errorOf({ code, details }: ServiceError): PodvmError {
    const kind = kindOfCode(code);
    const words = printable(details.replace(noConnection, '$1'), maxDetailsChars);
    if (kind !== 'unavailable') {
      this.#is('here');
      return new PodvmError(kind, words);
    }
    const error = new PodvmError(
      'unavailable',
      `Cannot reach the runtime of the setting delegate at ${this.settings.socketPath}: ${words}`,
      { fix: 'Start that runtime, or correct delegate in the settings of podvm; pods in machines are not affected.' },
    );
    this.#is('away', error);
    return error;
  }

  #is(state: 'here' | 'away', error?: unknown): void {
    const isAway = state === 'away';
    if (this.#isAway === isAway) return;
    this.#isAway = isAway;
    const delegate = this.settings.socketPath;
    if (isAway) this.#log.error('the delegate does not answer', error, { delegate });
    else this.#log.info('the delegate answers again', { delegate });
  }
}

const empty = Buffer.alloc(0);
const asItIs = (bytes: Buffer) => bytes;

const pathOf = ({ parent, name }: Method) => `/${parent.typeName}/${name}`;

function read<Output extends DescMessage>(
  { name, output }: Method<DescMessage, Output>,
  bytes: Uint8Array,
): MessageShape<Output> {
  try {
    return fromBinary(output, bytes);
  } catch (cause) {
    throw new PodvmError('corrupt', `Cannot read the delegate's answer to ${name}: it is not a ${output.typeName}`, {
      cause,
      fix: 'Check that the setting delegate names the socket of a runtime that serves CRI v1.',
    });
  }
}
