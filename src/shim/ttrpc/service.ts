import {
  create,
  type DescMessage,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { PodvmError } from '#base/errors.ts';

/** One function for each verb of a service. The signal aborts at the caller's deadline and when it disconnects. */
export type Verbs<Service extends DescService> = {
  readonly [Verb in keyof Service['method']]: (
    request: MessageShape<Service['method'][Verb]['input']>,
    signal: AbortSignal,
  ) => Promise<MessageInitShape<Service['method'][Verb]['output']>>;
};

/** Answers a payload with a payload. */
export type Handler = (payload: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>;

/** The handlers of a service by the names of its methods on the wire. */
export function handlersOf<Service extends DescService>(
  service: Service,
  verbs: Verbs<Service>,
): ReadonlyMap<string, Handler> {
  return new Map(
    service.methods.map(({ name, localName, input, output }) => {
      // SAFE: Verbs has a function for each method of the service, with its messages
      const handle = verbs[localName as keyof Verbs<Service>] as (
        request: unknown,
        signal: AbortSignal,
      ) => Promise<MessageInitShape<DescMessage>>;
      const answer: Handler = async (payload, signal) =>
        toBinary(output, create(output, await handle(decode(input, payload, name), signal)));
      return [name, answer];
    }),
  );
}

function decode(input: DescMessage, payload: Uint8Array, verb: string): unknown {
  try {
    return fromBinary(input, payload);
  } catch (cause) {
    throw new PodvmError('invalid', `Cannot read the request of ${verb}: it is not a valid ${input.typeName}`, {
      cause,
    });
  }
}
