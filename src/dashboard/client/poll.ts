import { useEffect, useState } from 'preact/hooks';
import { CallError } from './api.ts';

export interface Polled<T> {
  /** The last answer; undefined before the first. */
  readonly data: T | undefined;
  /** Why the last call failed; undefined if it did not. */
  readonly error: CallError | undefined;
  /** Asks again at once. */
  readonly refresh: () => void;
}

/**
 * Loads now and every `everyMs`, while the page is visible. `key`: what is loaded; another one starts from nothing. A
 * slow answer delays the next call.
 */
export function usePoll<T>(key: string, everyMs: number, load: (signal: AbortSignal) => Promise<T>): Polled<T> {
  const [state, setState] = useState<{ key: string; data?: T; error?: CallError }>({ key });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isLoading = false;
    const run = async () => {
      if (isLoading || signal.aborted || document.hidden) return;
      isLoading = true;
      try {
        const data = await load(signal);
        if (!signal.aborted) setState({ key, data });
      } catch (error) {
        if (!signal.aborted)
          setState((before) => ({ ...(before.key === key ? before : { key }), error: asError(error) }));
      }
      isLoading = false;
      clearTimeout(timer);
      if (!signal.aborted) timer = setTimeout(() => void run(), everyMs);
    };
    const onVisible = () => void run();
    document.addEventListener('visibilitychange', onVisible);
    void run();
    return () => {
      document.removeEventListener('visibilitychange', onVisible);
      clearTimeout(timer);
      stop.abort();
    };
  }, [key, everyMs, turn]);
  const { data, error } = state.key === key ? state : { data: undefined, error: undefined };
  return { data, error, refresh: () => setTurn((before) => before + 1) };
}

export const asError = (error: unknown): CallError =>
  error instanceof CallError
    ? error
    : new CallError('internal', error instanceof Error ? error.message : String(error));
