export interface Deadline extends Disposable {
  /** Aborts with the caller's signal or at the deadline. */
  readonly signal: AbortSignal;
}

/**
 * Opens a deadline. Disposing it when the work is done frees its memory: `AbortSignal.timeout` would hold it until the
 * deadline, and Node keeps a signal of `AbortSignal.any` that has a listener until it aborts.
 */
export function openDeadline(ms: number, callers?: AbortSignal): Deadline {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(new DOMException('The time is over', 'TimeoutError')), ms).unref();
  const cancel = () => ending.abort(callers?.reason);
  if (callers?.aborted === true) cancel();
  else callers?.addEventListener('abort', cancel, { once: true });
  return {
    signal: ending.signal,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      callers?.removeEventListener('abort', cancel);
    },
  };
}
