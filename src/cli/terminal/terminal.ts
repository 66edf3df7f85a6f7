import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { PodvmError, messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { fixOf } from '#host/advice.ts';

/** The process's environment as a command sees it. */
export interface Terminal {
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  /** Whether to use colour: on a terminal, with `NO_COLOR` unset. */
  readonly hasColour: boolean;
  /** Aborted when standard output has no reader: the pipe's reader or the terminal is gone. */
  readonly outputGone: AbortSignal;
}

/** Writes and waits until there is room again. A reader that is gone is not an error. */
export async function write(to: Writable, data: string | Uint8Array): Promise<void> {
  if (to.destroyed || to.write(data)) return;
  const done = new AbortController(); // removes the other listener, which would otherwise accumulate
  const { signal } = done;
  try {
    await Promise.race([once(to, 'drain', { signal }), once(to, 'close', { signal })]);
  } catch {
    // the next write reports the failure
  } finally {
    done.abort();
  }
}

/** Format of a fix below a message. */
export const fixLine = (fix: string): string => `  fix: ${fix}`;

/** Formats an error for a user: what failed, why, the last lines of the program's log, and the fix. */
export function errorText(error: unknown): string {
  const lines = [`podvm: ${messageOf(error)}`];
  if (error instanceof PodvmError) {
    lines.push(...error.tail.map((line) => `  | ${printable(line)}`));
  }
  const fix = fixOf(error);
  if (fix !== undefined) lines.push(fixLine(fix));
  return `${lines.join('\n')}\n`;
}

/** Formats columns, each as wide as its widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('   ')
        .trimEnd(),
    )
    .join('\n')
    .concat('\n');
}

/** Formats an age as kubectl does: `90s`, `5m`, `3h`, `2d`. */
export function age(since: string, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(since)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
