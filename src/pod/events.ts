import { printable } from '#base/guest-text.ts';
import type { Clock } from '#host/clock.ts';
import { maxEvents, type PodEvent } from './pods.ts';

export interface Events {
  readonly all: readonly PodEvent[];
  normal(reason: string, message: string, container?: string): void;
  warn(reason: string, message: string, container?: string): void;
  listen(listener: (event: PodEvent) => void): () => void;
}

/** The newest 500 events; text is made printable here, whoever it came from. */
export function createEvents(clock: Clock): Events {
  const all: PodEvent[] = [];
  const listeners = new Set<(event: PodEvent) => void>();
  const add = (type: PodEvent['type'], reason: string, message: string, container: string | undefined) => {
    const at = new Date(clock.now()).toISOString();
    const event: PodEvent = {
      at,
      type,
      reason,
      message: printable(message),
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
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
