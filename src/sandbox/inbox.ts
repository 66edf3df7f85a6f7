import { PodvmError } from '#base/errors.ts';

/**
 * The one place where a sandbox's state changes. What comes in is *told* (events: the guest's, the machine's) or
 * *asked* (requests that want an answer); each is applied at once and alone, so that there is one writer, and what
 * was told comes before what was asked. Applying is synchronous: work that waits runs outside and tells its outcome.
 */
export interface Inbox {
  /** Never lost: events are few and bounded by their senders. */
  tell(apply: () => void): void;
  /** Settles with what `apply` returns or throws. Errors: `exhausted` when too many wait. */
  ask<T>(apply: () => T): Promise<T>;
}

/** Requests that may wait; each is one verb of one caller. */
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
        onBug(error); // an assertion of ours: the sandbox it belongs to fails loudly, the others go on
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
          new PodvmError('exhausted', `Cannot ask the sandbox: ${maxWaitingRequests} requests wait already`),
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
