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
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { kindOfCode } from '#base/status-codes.ts';
import { maxMessageBytes } from './serve-grpc.ts';

/** A verb of CRI, with the schemas of its messages. */
export type Method<Input extends DescMessage = DescMessage, Output extends DescMessage = DescMessage> = Pick<
  DescMethod,
  'name' | 'parent'
> & { readonly input: Input; readonly output: Output };

/** Name of a runtime and fixes in errors. */
export interface RuntimeName {
  /** Name in a sentence, such as "the runtime of the setting delegate". */
  readonly name: string;
  /** Fix for a runtime that cannot be reached. */
  readonly awayFix: string;
  /** Fix for answers that are not of CRI. */
  readonly corruptFix: string;
}

/** Pauses before a connection is tried again, in `ms`. */
const reconnectMs = { 'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 1000 };
/** The server of a unix socket has no name; servers in Go expect this one. */
const authority = 'localhost';
const maxDetailsChars = 1500;
/** Message of gRPC's client when it cannot connect; only the middle is of use. */
const noConnection = /^No connection established\. Last error: (?:Error: )?(.*?)\. Resolution note: .*$/s;

/** A client of another runtime's CRI socket. It connects when it is first called, and again after that runtime restarted. */
export class CriClient implements Disposable {
  readonly #socketPath: string;
  readonly #runtime: RuntimeName;
  readonly #client: Client;

  constructor(socketPath: string, runtime: RuntimeName) {
    this.#socketPath = socketPath;
    this.#runtime = runtime;
    this.#client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
      'grpc.default_authority': authority,
      'grpc.max_receive_message_length': maxMessageBytes,
      'grpc.max_send_message_length': maxMessageBytes,
      ...reconnectMs,
    });
  }

  /**
   * Sends the bytes of a request, and returns those of the answer. Errors: the runtime's own; `unavailable` while it is
   * away.
   */
  call(method: Method, request: Uint8Array, signal: AbortSignal): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const cancel = () => call.cancel();
      const bytes = Buffer.from(request);
      const call = this.#client.makeUnaryRequest(pathOf(method), asItIs, asItIs, bytes, (error, answer) => {
        signal.removeEventListener('abort', cancel);
        if (error === null) resolve(answer ?? empty);
        else reject(signal.aborted ? (signal.reason as Error) : this.#errorOf(error)); // SAFE: our calls abort with an Error
      });
      signal.addEventListener('abort', cancel, { once: true });
    });
  }

  /** Sends a request, and returns the answer. Errors: as `call`; `corrupt` for an answer that the schema cannot read. */
  async ask<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    request: MessageInitShape<Input>,
    signal: AbortSignal,
  ): Promise<MessageShape<Output>> {
    return this.read(method, await this.call(method, toBinary(method.input, create(method.input, request)), signal));
  }

  /** Yields the answers of a verb that streams, until the signal aborts. Errors: as `ask`. */
  async *listen<Input extends DescMessage, Output extends DescMessage>(
    method: Method<Input, Output>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<Output>> {
    const call = this.#client.makeServerStreamRequest(pathOf(method), asItIs, asItIs, empty, new Metadata());
    const cancel = () => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      for await (const bytes of call) yield this.read(method, bytes as Buffer); // SAFE: the deserializer returns it
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof PodvmError ? error : this.#errorOf(error as ServiceError); // SAFE: streams of gRPC fail with nothing else
    } finally {
      signal.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  /** The message of an answer. Errors: `corrupt`. */
  read<Output extends DescMessage>(
    { name, output }: Method<DescMessage, Output>,
    bytes: Uint8Array,
  ): MessageShape<Output> {
    try {
      return fromBinary(output, bytes);
    } catch (cause) {
      const who = this.#runtime.name;
      throw new PodvmError('corrupt', `Cannot read the answer of ${who} to ${name}: it is not a ${output.typeName}`, {
        cause,
        fix: this.#runtime.corruptFix,
      });
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  #errorOf({ code, details }: ServiceError): PodvmError {
    const kind = kindOfCode(code);
    const words = printable(details.replace(noConnection, '$1'), maxDetailsChars);
    if (kind !== 'unavailable') return new PodvmError(kind, words);
    const { name, awayFix: fix } = this.#runtime;
    return new PodvmError('unavailable', `Cannot reach ${name} at ${this.#socketPath}: ${words}`, { fix });
  }
}

const empty = Buffer.alloc(0);
const asItIs = (bytes: Buffer) => bytes;

const pathOf = ({ parent, name }: Method) => `/${parent.typeName}/${name}`;
