import { connect, type Socket } from 'node:net';
import {
  create,
  type DescMethodUnary,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type ErrorKind, messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { codeOfKind } from '#base/status-codes.ts';
import { openDeadline } from '#host/deadline.ts';
import { RequestSchema, ResponseSchema } from '../schema/generated/ttrpc-request_pb.ts';
import { encodeFrame, FrameReader, frameTypes } from './frame.ts';

/** A client of a ttrpc server; connects at the first call, and again after it lost the connection. */
export class TtrpcClient implements Disposable {
  readonly #path: string;
  readonly #waiting = new Map<number, PromiseWithResolvers<Buffer>>();
  #socket: Socket | undefined;
  #nextStream = 1;

  constructor(socketPath: string) {
    this.#path = socketPath;
  }

  /** Errors: the server's; `unavailable` without a connection, `timeout`, `cancelled`. */
  async call<Input extends DescMessage, Output extends DescMessage>(
    { parent, name, input, output }: DescMethodUnary<Input, Output>,
    message: MessageInitShape<Input>,
    { ms, signal }: { readonly ms: number; readonly signal?: AbortSignal },
  ): Promise<MessageShape<Output>> {
    const request = create(RequestSchema, {
      service: parent.typeName,
      method: name,
      payload: toBinary(input, create(input, message)),
      timeoutNano: BigInt(ms) * 1_000_000n,
    });
    const streamId = this.#nextStream;
    this.#nextStream += 2; // clients use odd numbers
    const waiting = Promise.withResolvers<Buffer>();
    this.#waiting.set(streamId, waiting);
    using deadline = openDeadline(ms, signal);
    const give = () => waiting.reject(deadline.signal.reason);
    deadline.signal.addEventListener('abort', give, { once: true });
    if (deadline.signal.aborted) give();
    try {
      this.#open().write(
        encodeFrame({ streamId, type: frameTypes.request, payload: toBinary(RequestSchema, request) }),
      );
      const { status, payload } = fromBinary(ResponseSchema, await waiting.promise);
      if (status !== undefined && status.code !== 0) {
        throw new PodvmError(kindOfCode(status.code), `${name}: ${printable(status.message)}`);
      }
      return fromBinary(output, payload);
    } finally {
      this.#waiting.delete(streamId);
      deadline.signal.removeEventListener('abort', give);
    }
  }

  #open(): Socket {
    if (this.#socket !== undefined) return this.#socket;
    const socket = connect(this.#path);
    const reader = new FrameReader();
    socket.unref();
    socket.on('data', (chunk: Buffer) => {
      try {
        for (const { streamId, payload } of reader.read(chunk)) this.#waiting.get(streamId)?.resolve(payload);
      } catch (error) {
        socket.destroy(error as Error); // SAFE: the reader throws errors
      }
    });
    let why = 'it disconnected';
    socket.on('error', (error) => (why = messageOf(error)));
    socket.once('close', () => {
      if (this.#socket === socket) this.#socket = undefined;
      const lost = new PodvmError('unavailable', `Cannot reach ${this.#path}: ${why}`);
      for (const { reject } of this.#waiting.values()) reject(lost);
    });
    this.#socket = socket;
    return socket;
  }

  [Symbol.dispose](): void {
    this.#socket?.destroy();
  }
}

const kindsByCode = new Map<number, ErrorKind>(
  // SAFE: the keys of the table are the kinds
  Object.entries(codeOfKind).map(([kind, code]) => [code, kind as ErrorKind]),
);
const kindOfCode = (code: number): ErrorKind => kindsByCode.get(code) ?? 'internal';
