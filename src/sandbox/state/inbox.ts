import { PodvmError } from '#base/errors.ts';

/**
 * The one place where a sandbox's state changes. Input is *told* (events of guest and machine) or *asked* (requests
 * that need an answer). Each is applied at once and alone, so that there is one writer, and told events precede
 * requests asked later. Applying is synchronous: work that waits runs outside and tells its result.
 */
export interface Inbox {
  /** Never lost: events are few and bounded by their senders. */
  tell(apply: () => void): void;
  /** Settles with the result of `apply`. Errors: those of `apply`; `exhausted` when too many wait. */
  ask<T>(apply: () => T): Promise<T>;
}

/** Maximum waiting requests, each of which is one call of one caller. */
export const maxWaitingRequests = 1024;

export function createInbox(onBug: (error: unknown) => void): Inbox {
  const events: (() => void)[] = [];
  const requests: (() => void)[] = [];
  let isScheduled = false;

  const drain = () => {
    isScheduled = false;
    for (;;) {
      const next = events.shift() ?? requests.shift();
      if (next === undefined) return;
      try {
        next();
      } catch (error) {
        onBug(error); // a bug in one sandbox fails that sandbox only
      }
    }
  };
  const schedule = () => {
    if (isScheduled) return;
    isScheduled = true;
    queueMicrotask(drain);
  };
  return {
    tell(apply) {
      events.push(apply);
      schedule();
    },
    ask(apply) {
      if (requests.length >= maxWaitingRequests) {
        return Promise.reject(
          new PodvmError('exhausted', `Cannot ask the sandbox: ${maxWaitingRequests} requests are waiting`, {
            fix: 'Wait for the requests under way to end, then try again.',
          }),
        );
      }
      return new Promise((resolve, reject) => {
        requests.push(() => {
          try {
            resolve(apply());
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)));
          }
        });
        schedule();
      });
    },
  };
}
