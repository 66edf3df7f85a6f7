import { setTimeout as delay } from 'node:timers/promises';
import { kindOf } from '#base/errors.ts';
import { type ContainerEventResponse, RuntimeService } from '../schema/api_pb.ts';
import type { Delegate } from './delegate.ts';

/** Pause before the next request for events, in `ms`. */
const retryMs = 1000;

/**
 * Yields the items of all streams as they arrive. When one stream ends or fails, so does the result, and the others are
 * ended.
 */
export async function* mergeStreams<T>(streams: readonly AsyncIterable<T>[]): AsyncGenerator<T> {
  const iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
  const next = async (at: number) => ({ at, result: await iterators[at]?.next() });
  const pending = new Map(iterators.map((_iterator, at) => [at, next(at)]));
  for (const each of pending.values()) each.catch(() => {}); // one that fails later than another
  try {
    for (;;) {
      const { at, result } = await Promise.race(pending.values());
      if (result === undefined || result.done === true) return;
      const following = next(at);
      following.catch(() => {});
      pending.set(at, following);
      yield result.value;
    }
  } finally {
    for (const iterator of iterators) void iterator.return?.();
  }
}

/**
 * Yields the delegate's events until the signal aborts, also after it was restarted. Errors: `unsupported` for a runtime
 * without events: the kubelet then lists pods instead.
 */
export async function* eventsOf(delegate: Delegate, signal: AbortSignal): AsyncGenerator<ContainerEventResponse> {
  while (!signal.aborted) {
    try {
      yield* delegate.listen(RuntimeService.method.getContainerEvents, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (kindOf(error) !== 'unavailable') throw error;
    }
    await delay(retryMs, undefined, { signal }).catch(() => {}); // the caller sees the abort
  }
}
