import { PodvmError, messageOf } from '#base/errors.ts';
import { currentRequest } from './request.ts';

/** Fields in order, with plain values. They must not contain guest data or secrets. */
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

export const logFormats = ['text', 'json'] as const;
export type LogFormat = (typeof logFormats)[number];

/** Format of log lines. */
export interface LogStyle {
  readonly format: LogFormat;
  /** Begins each line with its priority, which systemd's journal removes (sd-daemon(3)). */
  readonly hasPriority: boolean;
}

export const plainStyle: LogStyle = { format: 'text', hasPriority: false };

/** Priorities of syslog. */
const priorities = { debug: 7, info: 6, warn: 4, error: 3, silent: 3 } as const satisfies Record<LogLevel, number>;

interface Line {
  readonly time: string;
  readonly level: LogLevel;
  readonly event: string;
}

const formatted = {
  /** `time level event key=value ...` */
  text: ({ time, level, event }: Line, fields: LogFields): string => {
    const pairs = Object.entries(fields).map(
      ([key, value]) => ` ${key}=${typeof value === 'string' && /[\s"=]/.test(value) ? JSON.stringify(value) : value}`,
    );
    return `${time} ${level} ${event}${pairs.join('')}`;
  },
  /** One object per line. A field cannot replace the time, level or event. */
  json: (line: Line, fields: LogFields): string => JSON.stringify({ ...line, ...fields, ...line }),
} as const satisfies Record<LogFormat, (line: Line, fields: LogFields) => string>;

/** Writes one line per event with `write` (standard error in the program). */
export function createLog(
  level: LogLevel,
  write: (line: string) => void,
  style: LogStyle = plainStyle,
  bound: LogFields = {},
): Log {
  const emit = (at: LogLevel, event: string, fields: LogFields = {}) => {
    if (logLevels.indexOf(at) < logLevels.indexOf(level)) return;
    const request = currentRequest();
    const all = { ...bound, ...(request === undefined ? {} : { request }), ...fields };
    const given = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
    const text = formatted[style.format]({ time: new Date().toISOString(), level: at, event }, given);
    write(`${style.hasPriority ? `<${priorities[at]}>` : ''}${text}\n`);
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
    with: (fields) => createLog(level, write, style, { ...bound, ...fields }),
  };
}

/**
 * Whether standard error of a process with this environment goes to systemd's journal: `JOURNAL_STREAM` names its device and
 * inode (systemd.exec(5)).
 */
export function goesToJournal(
  { JOURNAL_STREAM: stream }: { readonly JOURNAL_STREAM?: string | undefined },
  { dev, ino }: { readonly dev: bigint; readonly ino: bigint },
): boolean {
  return stream === `${dev}:${ino}`;
}

export const silentLog: Log = createLog('silent', () => {});
