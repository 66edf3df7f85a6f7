import { PodvmError, messageOf } from '#base/errors.ts';

/** Fields in order, with plain values. Must not contain guest data or secrets. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Log {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  /** Logs an error as its message with those of its causes. */
  error(event: string, error: unknown, fields?: LogFields): void;
  /** Returns a log whose lines also carry these fields. */
  with(fields: LogFields): Log;
}

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Writes one line per event, `time level event key=value ...`, with `write` (standard error in the program). */
export function createLog(level: LogLevel, write: (line: string) => void, bound: LogFields = {}): Log {
  const emit = (at: LogLevel, event: string, fields: LogFields = {}) => {
    if (logLevels.indexOf(at) < logLevels.indexOf(level)) return;
    const pairs = Object.entries({ ...bound, ...fields })
      .filter(([, value]) => value !== undefined)
      .map(
        ([key, value]) =>
          ` ${key}=${typeof value === 'string' && /[\s"=]/.test(value) ? JSON.stringify(value) : value}`,
      );
    write(`${new Date().toISOString()} ${at} ${event}${pairs.join('')}\n`);
  };
  return {
    debug: (event, fields) => emit('debug', event, fields),
    info: (event, fields) => emit('info', event, fields),
    warn: (event, fields) => emit('warn', event, fields),
    error: (event, error, fields) =>
      emit('error', event, {
        ...fields,
        err: messageOf(error),
        kind: error instanceof PodvmError ? error.kind : undefined,
      }),
    with: (fields) => createLog(level, write, { ...bound, ...fields }),
  };
}

export const silentLog: Log = createLog('silent', () => {});
