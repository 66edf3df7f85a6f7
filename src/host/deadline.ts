export interface Deadline extends Disposable {
  /** Aborts with the caller's signal or at the deadline. */
  readonly signal: AbortSignal;
}

/** Dispose it when the work is done, which frees its memory; `AbortSignal.timeout` holds it until the deadline. */
export function openDeadline(ms: number, callers?: AbortSignal): Deadline {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new DOMException('The time is over', 'TimeoutError')), ms).unref();
  return {
    signal: callers === undefined ? late.signal : AbortSignal.any([callers, late.signal]),
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}
