import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { decodeRecord, type LogRecord } from '#sandbox/log/log-format.ts';

/** Returns the records of a container's log, except one that is being written. Errors: a line that is no record. */
export async function logRecords(path: string): Promise<readonly LogRecord[]> {
  const lines = (await readFile(path, 'latin1')).split('\n').slice(0, -1);
  return lines.map((line) => decodeRecord(Buffer.from(line, 'latin1')) ?? assert.fail(`no record: ${line}`));
}

/** The whole lines that the records contain. */
export function linesOf(records: readonly LogRecord[]): readonly string[] {
  return Buffer.concat(records.map(({ bytes }) => bytes))
    .toString()
    .split('\n')
    .slice(0, -1);
}

export const logLines = async (path: string) => linesOf(await logRecords(path));
