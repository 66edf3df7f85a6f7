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
  const add = (
    type: PodEvent['type'],
    reason: string,
    message: string,
    container: string | undefined,
    fix?: string | undefined,
  ) => {
    const at = new Date(clock.now()).toISOString();
    const text = printable(message);
    const before = all.findLastIndex((event) => event.container === container);
    const last = all[before];
    if (last?.reason === reason && last.message === text) {
      all[before] = { ...last, at, count: last.count + 1 };
      return;
    }
    const event: PodEvent = {
      at,
      type,
      reason,
      message: text,
      count: 1,
      ...(fix === undefined ? {} : { fix: printable(fix) }),
      ...(container === undefined ? {} : { container }),
    };
    all.push(event);
    if (all.length > maxEvents) all.shift();
    for (const listener of listeners) listener(event);
  };
  return {
    get all() {
      return [...all];
    },
    normal: (reason, message, container) => add('Normal', reason, message, container),
    warn: (reason, message, container) => add('Warning', reason, message, container),
    failed: (reason, error, container) => add('Warning', reason, messageOf(error), container, fixOf(error)),
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
