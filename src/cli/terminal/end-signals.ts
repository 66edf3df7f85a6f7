import { constants } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import type { Terminal } from './terminal.ts';

/**
 * Events that end a command: Ctrl-C, SIGTERM, a closed terminal, Ctrl-\, and output without a reader, which counts as
 * the signal that a program without a handler would get.
 */
export type EndSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGQUIT' | 'SIGPIPE';

/** Signals that are caught. Node ignores SIGPIPE: a write reports EPIPE instead. */
const caught = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

export interface EndSignals extends Disposable {
  /** Aborted by the first signal. */
  readonly any: AbortSignal;
  /** Exit code that a shell reports for the first signal; undefined before it. */
  readonly exitCode: number | undefined;
  /** Calls `listener` for each later signal. Returns a function that ends the subscription. */
  listen(listener: (signal: EndSignal) => void): () => void;
}

/**
 * Keeps signals from ending this process until it is disposed, so that it can clean up. `keepsHangUp`: SIGHUP was
 * ignored when the command began (nohup), and stays so.
 */
export function catchEndSignals(
  source: NodeJS.EventEmitter,
  { outputGone }: Pick<Terminal, 'outputGone'>,
  keepsHangUp: boolean,
): EndSignals {
  const first = new AbortController();
  const listeners = new Set<(signal: EndSignal) => void>();
  let exitCode: number | undefined;
  const take = (signal: EndSignal) => {
    exitCode ??= 128 + constants.signals[signal];
    first.abort(new PodvmError('cancelled', `Cannot continue: ended by ${signal}`));
    for (const listener of listeners) listener(signal);
  };
  const handlers = caught.map((signal) => [signal, () => take(signal)] as const);
  const ignore = () => undefined;
  for (const [signal, handler] of handlers) source.on(signal, signal === 'SIGHUP' && keepsHangUp ? ignore : handler);
  const onGone = () => take('SIGPIPE');
  outputGone.addEventListener('abort', onGone);
  if (outputGone.aborted) onGone();
  return {
    any: first.signal,
    get exitCode() {
      return exitCode;
    },
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    [Symbol.dispose]() {
      for (const [signal, handler] of handlers) source.off(signal, handler).off(signal, ignore);
      outputGone.removeEventListener('abort', onGone);
    },
  };
}
