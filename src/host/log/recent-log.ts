import { createLog, type Log } from './log.ts';

/** Characters of the lines that are kept. */
const maxChars = 256 * 1024;

export interface RecentLog {
  /** Writes to the given log, and keeps the lines from `info` on, whatever the given log leaves out. */
  readonly log: Log;
  /** The last lines, oldest first. */
  text(): string;
}

/** Keeps the last lines of a log in memory, within a bound. */
export function keepRecent(given: Log): RecentLog {
  const lines: string[] = [];
  let chars = 0;
  const keep = (line: string) => {
    lines.push(line);
    chars += line.length;
    while (chars > maxChars) chars -= lines.shift()?.length ?? chars;
  };
  return { log: both(given, createLog('info', keep)), text: () => lines.join('') };
}

const both = (one: Log, other: Log): Log => ({
  debug: (...line) => one.debug(...line),
  info(...line) {
    one.info(...line);
    other.info(...line);
  },
  warn(...line) {
    one.warn(...line);
    other.warn(...line);
  },
  error(...line) {
    one.error(...line);
    other.error(...line);
  },
  with: (fields) => both(one.with(fields), other.with(fields)),
});
