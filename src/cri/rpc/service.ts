import type { EventEmitter } from 'node:events';
import {
  create,
  type DescMessage,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  type Server,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js';
import { kindOf, PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import { asRequest, requestIdOf, traceHeader } from '#host/log/request.ts';
import { spanContextOf, traced } from '#host/log/tracing.ts';
import { statusOf } from '#base/status-codes.ts';

/** A message of a handler. Omitted fields have proto3's defaults. */
export type Answer<Desc extends DescMessage> = MessageInitShape<Desc>;

/** An answer that is encoded already, and is sent as it is. */
export class EncodedAnswer {
  readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
}

/**
 * One function for each verb of a service, from a request and the caller's signal to one answer, or to a stream of
 * answers. The signal aborts when the client cancels or disconnects (reason: `cancelled`), and at its deadline
 * (`timeout`). `bytes`: the request as it arrived. `Encoded`: another form of an answer.
 */
export type Verbs<Service extends DescService, Encoded = never> = {
  readonly [Verb in keyof Service['method']]: Service['method'][Verb] extends {
    readonly methodKind: infer Kind;
    readonly input: infer Input extends DescMessage;
    readonly output: infer Output extends DescMessage;
  }
    ? Kind extends 'unary'
      ? (request: MessageShape<Input>, signal: AbortSignal, bytes: Buffer) => Promise<Answer<Output> | Encoded>
      : (request: MessageShape<Input>, signal: AbortSignal) => AsyncIterable<Answer<Output>>
    : never;
};

type AnyAnswer = MessageInitShape<DescMessage> | EncodedAnswer;
type Unary = (request: unknown, signal: AbortSignal, bytes: Buffer) => Promise<AnyAnswer>;
type Streaming = (request: unknown, signal: AbortSignal) => AsyncIterable<MessageInitShape<DescMessage>>;

/** Adds a service: decodes requests, encodes answers, and maps errors to status codes. */
export function addService<Service extends DescService>(
  server: Server,
  service: Service,
  verbs: Verbs<Service, EncodedAnswer>,
  log: Log,
): void {
  const definition: Record<string, MethodDefinition<Buffer, Buffer>> = {};
  const handlers: Record<string, handleUnaryCall<Buffer, Buffer> | handleServerStreamingCall<Buffer, Buffer>> = {};
  for (const method of service.methods) {
    const { localName: verb, name } = method;
    const isStreaming = method.methodKind === 'server_streaming';
    const asItIs = (bytes: Buffer) => bytes;
    definition[verb] = {
      path: `/${service.typeName}/${name}`,
      requestStream: false,
      responseStream: isStreaming,
      requestSerialize: asItIs,
      requestDeserialize: asItIs, // decoded below, where a malformed message gets its own code
      responseSerialize: asItIs,
      responseDeserialize: asItIs,
    };
    const { input, output } = method;
    const decode = (bytes: Uint8Array) => decodeRequest(input, bytes, name);
    const encode: Encode = (answer) =>
      answer instanceof EncodedAnswer ? answer.bytes : Buffer.from(toBinary(output, create(output, answer)));
    // SAFE: Verbs has a function for each method of the service, of the method's kind and messages
    const handle = verbs[verb as keyof Verbs<Service, EncodedAnswer>] as unknown;
    handlers[verb] = isStreaming
      ? streamingHandler(name, (bytes, signal) => (handle as Streaming)(decode(bytes), signal), encode, log)
      : unaryHandler(name, (bytes, signal) => (handle as Unary)(decode(bytes), signal, bytes), encode, log);
  }
  server.addService(definition, handlers);
}

function decodeRequest(input: DescMessage, bytes: Uint8Array, verb: string): unknown {
  try {
    return fromBinary(input, bytes);
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot read the request of ${verb}: it is not a valid ${input.typeName}`, {
      cause,
    });
  }
}

/** Calls that are traced: those that change something. A kubelet asks for lists and runs exec probes all the time. */
const changes = /^(Run|Stop|Remove|Create|Start|Update|Pull)/;

type Encode = (answer: AnyAnswer) => Buffer;

function unaryHandler(
  verb: string,
  handle: (bytes: Buffer, signal: AbortSignal) => Promise<AnyAnswer>,
  encode: Encode,
  log: Log,
): handleUnaryCall<Buffer, Buffer> {
  return (call, answer) => {
    const signal = signalOf(call);
    const [header] = call.metadata.get(traceHeader);
    const request = requestIdOf(header);
    const answered = async () => encode(await handle(call.request, signal));
    const run = () =>
      asRequest(request, () =>
        changes.test(verb)
          ? traced({ name: verb, caller: spanContextOf(header), isServer: true }, answered)
          : answered(),
      );
    const startedAt = performance.now();
    run().then(
      (bytes) => {
        log.debug('answered', { verb, request, ms: Math.round(performance.now() - startedAt) });
        answer(null, bytes);
      },
      (error: unknown) => {
        tell(log.with({ request }), verb, error);
        answer({ ...statusOf(asCallers(error, signal)), metadata: new Metadata() });
      },
    );
  };
}

function streamingHandler(
  verb: string,
  handle: (bytes: Buffer, signal: AbortSignal) => AsyncIterable<MessageInitShape<DescMessage>>,
  encode: Encode,
  log: Log,
): handleServerStreamingCall<Buffer, Buffer> {
  return (call) => {
    const signal = signalOf(call);
    const run = async () => {
      for await (const answer of handle(call.request, signal)) {
        signal.throwIfAborted();
        if (!call.write(encode(answer))) await drained(call, signal);
      }
    };
    const request = requestIdOf(call.metadata.get(traceHeader)[0]);
    asRequest(request, run).then(
      () => call.end(),
      (error: unknown) => {
        if (!signal.aborted) tell(log.with({ request }), verb, error); // a client may stop reading early
        call.emit('error', { ...statusOf(asCallers(error, signal)), metadata: new Metadata() });
      },
    );
  };
}

async function drained(call: ServerWritableStream<Buffer, Buffer>, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  call.once('drain', resolve);
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  signal.throwIfAborted();
}

/** Makes the signal of a call. gRPC reports a deadline as a cancellation, but the two have different consequences. */
function signalOf(
  call: EventEmitter & Pick<ServerUnaryCall<Buffer, Buffer>, 'cancelled' | 'getDeadline'>,
): AbortSignal {
  const controller = new AbortController();
  const leftMs = Number(call.getDeadline()) - Date.now();
  const dueMs = performance.now() + leftMs; // the date may change before that
  const abort = () => {
    const isLate = performance.now() + deadlineSlackMs >= dueMs;
    controller.abort(
      isLate
        ? new PodvmError('timeout', "not done by the caller's deadline")
        : new PodvmError('cancelled', 'the caller cancelled'),
    );
  };
  call.on('cancelled', abort);
  if (call.cancelled) abort();
  return controller.signal;
}

/** Tolerance before our deadline: the client's clock reaches it earlier, since it was sent as a duration. */
const deadlineSlackMs = 100;

/** Replaces the error of an aborted call by the reason of the abort. */
const asCallers = (error: unknown, signal: AbortSignal): unknown => (signal.aborted ? signal.reason : error);

function tell(log: Log, verb: string, error: unknown): void {
  const kind = kindOf(error);
  if (kind === 'internal' || kind === 'corrupt') log.error('verb failed', error, { verb });
  else log.info('verb refused', { verb, kind, err: statusOf(error).details });
}
