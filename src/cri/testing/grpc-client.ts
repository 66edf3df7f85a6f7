import assert from 'node:assert/strict';
import {
  create,
  type DescMessage,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { Client, credentials, Metadata, type CallOptions } from '@grpc/grpc-js';
import { maxMessageBytes } from '../rpc/serve-grpc.ts';

/** Matcher for assert.rejects: a status with that code, whose details match. */
export const is =
  (code: number, words = /./) =>
  (error: unknown): true => {
    const { code: got, details } = error as { code: number; details: string };
    assert.equal(got, code, details);
    assert.match(details, words);
    return true;
  };

/** One function for each verb, as a client of the real socket; for tests. */
export type ClientOf<Service extends DescService> = {
  readonly [Verb in keyof Service['method']]: Service['method'][Verb] extends {
    readonly methodKind: infer Kind;
    readonly input: infer Input extends DescMessage;
    readonly output: infer Output extends DescMessage;
  }
    ? (
        request?: MessageInitShape<Input>,
        options?: TestCallOptions,
      ) => Kind extends 'unary' ? Promise<MessageShape<Output>> : AsyncIterable<MessageShape<Output>>
    : never;
};

export interface TestCallOptions extends CallOptions {
  readonly signal?: AbortSignal;
  /** Metadata of the call. */
  readonly headers?: Readonly<Record<string, string>>;
}

function metadataOf(headers: TestCallOptions['headers'] = {}): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
}

export interface StreamingClient extends Disposable {
  of<Service extends DescService>(service: Service): ClientOf<Service>;
  /** Sends raw bytes. */
  raw(path: string, bytes: Uint8Array): Promise<Buffer>;
}

export function connectTestClient(socketPath: string): StreamingClient {
  const client = new Client(`unix:${socketPath}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost', // a server in Go refuses the path of its socket
    'grpc.max_receive_message_length': maxMessageBytes, // the limit of kubelet and crictl
  });
  const raw = (path: string, bytes: Uint8Array, { signal, headers, ...options }: TestCallOptions = {}) =>
    new Promise<Buffer>((resolve, reject) => {
      const asItIs = (sent: Buffer) => sent;
      const call = client.makeUnaryRequest(
        path,
        asItIs,
        asItIs,
        Buffer.from(bytes),
        metadataOf(headers),
        options,
        (error, answer) => (error === null ? resolve(answer ?? Buffer.alloc(0)) : reject(error)),
      );
      signal?.addEventListener('abort', () => call.cancel(), { once: true });
    });
  async function* stream(path: string, bytes: Uint8Array, { signal, ...options }: TestCallOptions = {}) {
    const asItIs = (sent: Buffer) => sent;
    const call = client.makeServerStreamRequest(path, asItIs, asItIs, Buffer.from(bytes), new Metadata(), options);
    signal?.addEventListener('abort', () => call.cancel(), { once: true });
    try {
      for await (const answer of call) yield answer as Buffer; // SAFE: the deserializer above returns it
    } finally {
      call.cancel();
    }
  }
  return {
    raw,
    of: (service) => {
      const verbs = service.methods.map(({ localName, name, input, output, methodKind }) => {
        const path = `/${service.typeName}/${name}`;
        const encode = (request: MessageInitShape<DescMessage> = {}) => toBinary(input, create(input, request));
        const unary = async (request?: MessageInitShape<DescMessage>, options?: TestCallOptions) =>
          fromBinary(output, await raw(path, encode(request), options));
        async function* streaming(request?: MessageInitShape<DescMessage>, options?: TestCallOptions) {
          for await (const bytes of stream(path, encode(request), options)) yield fromBinary(output, bytes);
        }
        return [localName, methodKind === 'unary' ? unary : streaming] as const;
      });
      // SAFE: a function for each method, as in the type
      return Object.fromEntries(verbs) as unknown as ClientOf<typeof service>;
    },
    [Symbol.dispose]: () => client.close(),
  };
}
