import { messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { fixOf } from '#host/advice.ts';
import type { Clock } from '#host/clock.ts';
import { maxEvents, type PodEvent } from './pods.ts';

export interface Events {
  readonly all: readonly PodEvent[];
  normal(reason: string, message: string, container?: string): void;
  warn(reason: string, message: string, container?: string): void;
  /** A warning in the words of an error, with its fix. */
  failed(reason: string, error: unknown, container?: string): void;
  listen(listener: (event: PodEvent) => void): () => void;
}

/**
 * The newest 500 events. One that repeats the last of its container is counted there and not told again: a probe that
 * waits for a slow start would say the same every second. Text is made printable here, whoever it came from. */
export function createEvents(clock: Clock): Events {
  const all: PodEvent[] = [];
  const listeners = new Set<(event: PodEvent) => void>();
  const add = (what: Omit<PodEvent, 'at' | 'count'>) => {
    const at = new Date(clock.now()).toISOString();
    const event: PodEvent = { ...what, message: printable(what.message), at, count: 1 };
    const before = all.findLastIndex((other) => other.container === event.container);
    const last = all[before];
    if (last?.reason === event.reason && last.message === event.message) {
      all[before] = { ...last, at, count: last.count + 1 };
      return;
    }
    all.push(event);
    if (all.length > maxEvents) all.shift();
    for (const listener of listeners) listener(event);
  };
  const about = (container: string | undefined) => (container === undefined ? {} : { container });
  return {
    get all() {
      return [...all];
    },
    normal: (reason, message, container) => add({ type: 'Normal', reason, message, ...about(container) }),
    warn: (reason, message, container) => add({ type: 'Warning', reason, message, ...about(container) }),
    failed(reason, error, container) {
      const fix = fixOf(error);
      const how = fix === undefined ? {} : { fix: printable(fix) };
      add({ type: 'Warning', reason, message: messageOf(error), ...how, ...about(container) });
    },
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
