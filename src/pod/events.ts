import { messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { fixOf } from '#host/advice.ts';
import type { Clock } from '#host/clock.ts';
import { maxEvents, type PodEvent } from './pods.ts';

export interface Events {
  readonly all: readonly PodEvent[];
  normal(reason: string, message: string, container?: string): void;
  warn(reason: string, message: string, container?: string): void;
  /** Adds a warning with the message and fix of an error. */
  failed(reason: string, error: unknown, container?: string): void;
  listen(listener: (event: PodEvent) => void): () => void;
}

/**
 * Keeps the newest 500 events. A repetition of a container's last event only raises its count: a probe during a slow
 * start would report the same every second. All text is made printable here.
 */
export function createEvents(clock: Clock, before: readonly PodEvent[] = []): Events {
  const all = [...before];
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
