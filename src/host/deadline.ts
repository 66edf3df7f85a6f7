export interface Deadline extends Disposable {
  /** Aborts with the caller's signal, or when the time is over. */
  readonly signal: AbortSignal;
}

/** Dispose of it when the work is done: it holds no memory afterwards, as AbortSignal.timeout does until its time is over. */
export function openDeadline(ms: number, callers?: AbortSignal): Deadline {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new DOMException('The time is over', 'TimeoutError')), ms).unref();
  return {
    signal: callers === undefined ? late.signal : AbortSignal.any([callers, late.signal]),
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}
