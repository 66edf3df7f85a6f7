import { PodvmError } from '#base/errors.ts';
import type { Clock } from '#host/clock.ts';
import type { KnownPod } from './known-pods.ts';
import type { Answer } from './rpc/service.ts';
import { containerStatusOf } from './translate/container-status.ts';
import { podStatusOf } from './translate/pod-status.ts';
import type { ContainerEventResponseSchema, ContainerEventType } from './schema/api_pb.ts';

type Event = Answer<typeof ContainerEventResponseSchema>;

/** Limits: unread events of one listener, and concurrent listeners. */
export const maxUnreadEvents = 1000;
export const maxListeners = 32;

/** Delivers events of pods and containers to all listeners. A sandbox's events carry its id. */
export class Events {
  readonly #clock: Clock;
  readonly #listeners = new Set<(event?: Event) => void>();
  #hasEnded = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  tell(type: ContainerEventType, id: string, pod: KnownPod): void {
    if (this.#listeners.size === 0) return;
    const event: Event = {
      containerId: id,
      containerEventType: type,
      createdAt: BigInt(this.#clock.now()) * 1_000_000n,
      podSandboxStatus: podStatusOf(pod),
      containersStatuses: [...pod.containers.values()].map(containerStatusOf),
    };
    for (const listener of this.#listeners) listener(event);
  }

  /** Ends the events. Listeners read the remaining ones. */
  end(): void {
    this.#hasEnded = true;
    for (const listener of this.#listeners) listener();
  }

  /**
   * Yields events until the signal aborts or the events end. Errors: `exhausted` for too many listeners, or one that
   * does not read.
   */
  async *listen(signal: AbortSignal): AsyncGenerator<Event> {
    if (this.#listeners.size >= maxListeners) {
      throw new PodvmError('exhausted', `Cannot listen to events: the limit is ${maxListeners} clients`, {
        fix: 'Disconnect another client, such as crictl events.',
      });
    }
    const unread: Event[] = [];
    let wake = () => {};
    let hasLost = false;
    const listener = (event?: Event) => {
      if (event !== undefined && unread.length < maxUnreadEvents) unread.push(event);
      else hasLost ||= event !== undefined;
      wake();
    };
    const onAbort = () => wake();
    this.#listeners.add(listener);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      while (!signal.aborted && !this.#hasEnded) {
        for (let next = unread.shift(); next !== undefined; next = unread.shift()) yield next;
        if (hasLost) {
          throw new PodvmError('exhausted', `Cannot deliver events: ${maxUnreadEvents} events are unread`, {
            fix: 'List pods and containers, and listen again.',
          });
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (signal.aborted || this.#hasEnded || unread.length > 0 || hasLost) resolve();
        });
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener('abort', onAbort);
    }
  }
}
