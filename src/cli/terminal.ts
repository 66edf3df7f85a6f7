import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { PodvmError, messageOf } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { fixOf } from '#host/advice.ts';

/** The process's surroundings as a command sees them. */
export interface Terminal {
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  /** Whether to colour: a terminal, and `NO_COLOR` unset. */
  readonly hasColour: boolean;
  /** Aborted when standard output has no reader any more: a pipe's reader or the terminal is gone. */
  readonly outputGone: AbortSignal;
}

/** Writes and waits until there is room again; a reader that has gone away is no error. */
export async function write(to: Writable, data: string | Uint8Array): Promise<void> {
  if (to.destroyed || to.write(data)) return;
  const done = new AbortController(); // takes the other listener away, of which there would be one more for each wait
  const { signal } = done;
  try {
    await Promise.race([once(to, 'drain', { signal }), once(to, 'close', { signal })]);
  } catch {
    // it broke: the next write sees that
  } finally {
    done.abort();
  }
}

/** How each message says what to do about it. */
export const fixLine = (fix: string): string => `  fix: ${fix}`;

/** What a person reads when a command fails: what, why, the last lines of who said it, and what to do. */
export function errorText(error: unknown): string {
  const lines = [`podvm: ${messageOf(error)}`];
  if (error instanceof PodvmError) {
    lines.push(...error.tail.map((line) => `  | ${printable(line)}`));
  }
  const fix = fixOf(error);
  if (fix !== undefined) lines.push(fixLine(fix));
  return `${lines.join('\n')}\n`;
}

/** Columns as wide as their widest cell. */
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

/** `90 s` -> `90s`, `5m`, `3h`, `2d`, as kubectl shows ages. */
export function age(since: string, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(since)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
