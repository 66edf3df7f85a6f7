import { constants } from 'node:os';
import { PodvmError } from '#base/errors.ts';
import type { Terminal } from './terminal.ts';

/**
 * What asks a command to end: Ctrl-C, a polite kill, a terminal that went away, Ctrl-\, and output without a reader
 * any more, which counts as the signal that a program without a handler would get.
 */
export type EndSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGQUIT' | 'SIGPIPE';

/** Without SIGPIPE, which Node ignores: a write says EPIPE instead. */
const caught = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

export interface EndSignals extends Disposable {
  /** Aborted by the first that comes. */
  readonly any: AbortSignal;
  /** What a shell shows for a program that the first of them ended; undefined while none came. */
  readonly exitCode: number | undefined;
  /** Called with each that comes from now on; gives the way to leave. */
  listen(listener: (signal: EndSignal) => void): () => void;
}

/**
 * Keeps signals from ending this process until it is disposed, so that what it has made is undone first. `keepsHangUp`:
 * SIGHUP was ignored when the command began (nohup), and is left to be.
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
    first.abort(new PodvmError('cancelled', `Cannot go on: ended by ${signal}`));
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
