import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { messageOf } from '#base/errors.ts';
import { type Clock, pause } from '#host/clock.ts';
import type { Log } from '#host/log/log.ts';
import type { Bundle } from './bundle/bundle.ts';
import { Events as EventsService } from './schema/generated/services/ttrpc/events/v1/events_pb.ts';
import { TtrpcClient } from './ttrpc/client.ts';

/** Maximum events of one containerd that are on the way; later ones are dropped, and logged. */
const maxWaiting = 1024;
const callTimeoutMs = 5_000;
/** Attempts for one event, since a containerd that restarts comes back; and the pauses between them, in `ms`. */
const attempts = 5;
const pauseMs = 1_000;

/** Sends events of tasks to containerd, in order. */
export class Events implements Disposable {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #receivers = new Map<string, Receiver>();

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** Resolves when containerd has the event, or did not take it. */
  async tell<Desc extends DescMessage>(
    { eventsSocket, namespace }: Bundle,
    topic: string,
    schema: Desc,
    event: MessageInitShape<Desc>,
  ): Promise<void> {
    if (eventsSocket === undefined) return;
    const receiver = this.#receivers.get(eventsSocket) ?? new Receiver(eventsSocket, this.#clock, this.#log);
    this.#receivers.set(eventsSocket, receiver);
    await receiver.send({
      namespace,
      topic,
      timestamp: timestampFromDate(new Date(this.#clock.now())),
      event: { typeUrl: schema.typeName, value: toBinary(schema, create(schema, event)) },
    });
  }

  [Symbol.dispose](): void {
    for (const receiver of this.#receivers.values()) receiver[Symbol.dispose]();
  }
}

type Envelope = NonNullable<MessageInitShape<(typeof EventsService)['method']['forward']['input']>['envelope']>;

class Receiver implements Disposable {
  readonly #client: TtrpcClient;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #closing = new AbortController();
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(socketPath: string, clock: Clock, log: Log) {
    this.#client = new TtrpcClient(socketPath);
    this.#clock = clock;
    this.#log = log;
  }

  async send(envelope: Envelope): Promise<void> {
    if (this.#waiting >= maxWaiting) {
      this.#log.warn('event not sent', { topic: envelope.topic ?? '', why: `${maxWaiting} others wait` });
      return;
    }
    this.#waiting += 1;
    const mine = this.#last.then(() => this.#deliver(envelope)).finally(() => (this.#waiting -= 1));
    this.#last = mine;
    await mine;
  }

  async #deliver(envelope: Envelope): Promise<void> {
    const { signal } = this.#closing;
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      try {
        await this.#client.call(EventsService.method.forward, { envelope }, { ms: callTimeoutMs, signal });
        return;
      } catch (error) {
        if (attempt < attempts) {
          await pause(this.#clock, pauseMs, signal);
          continue;
        }
        this.#log.warn('event not sent', { topic: envelope.topic ?? '', why: messageOf(error) });
        return;
      }
    }
  }

  [Symbol.dispose](): void {
    this.#closing.abort();
    this.#client[Symbol.dispose]();
  }
}
