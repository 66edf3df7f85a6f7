import type { Clock, Deadline } from '#host/clock.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';

/** Interval at which the sandbox is looked at, in `ms`. */
const lookMs = 1000;

/**
 * Opens a deadline for a call of a guest. Only time in which the pod is not paused counts, since a guest cannot answer while it
 * is.
 */
export function unpausedDeadline(clock: Clock, ms: number, sandbox: Pick<Sandbox, 'status'>): Deadline {
  const over = new AbortController();
  let leftMs = ms;
  const look = () => {
    if (sandbox.status.isPaused !== true) leftMs -= lookMs;
    if (leftMs > 0) cancel = clock.after(lookMs, look);
    else over.abort(new DOMException(`not done after ${ms} ms`, 'TimeoutError'));
  };
  let cancel = clock.after(lookMs, look);
  return { signal: over.signal, [Symbol.dispose]: () => cancel() };
}
