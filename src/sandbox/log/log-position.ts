import { constants } from 'node:fs';
import { open, readdir, readFile, stat, writeFile, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import * as v from 'valibot';
import { readBytes } from './read-lines.ts';
import { countRecords, maxRecordBytes } from './log-format.ts';

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const positionSchema = v.object({
  /** Device and inode of the log's file, which a reader of logs may have renamed. */
  file: v.string(),
  /** Bytes of that file that `stdout` and `stderr` count. */
  size: count,
  stdout: count,
  stderr: count,
});

/**
 * Position up to which a container's log has been written. It is kept beside the log for the next process, which counts
 * the bytes after `size`. It need not survive a power cut, because no pod does.
 */
export type LogPosition = Readonly<v.InferOutput<typeof positionSchema>>;

/** Bytes of each output, since the container was created, that are in its log or lost for good. */
export type LoggedBytes = Pick<LogPosition, 'stdout' | 'stderr'>;

/** Most files of the log's directory that are searched for a renamed one. */
const maxSiblings = 1000;

/** Size of the file of a position, more than the longest has: it is overwritten as a whole. */
const positionBytes = 256;

/**
 * Overwrites the position, which is cheaper than to replace the file. A process that is killed has written all of it or
 * nothing, because it is in one page (Linux's `generic_perform_write`).
 */
export async function saveLogPosition(path: string, position: LogPosition): Promise<void> {
  const text = JSON.stringify(position).padEnd(positionBytes);
  await writeFile(path, text, { flag: constants.O_WRONLY | constants.O_CREAT, mode: 0o600 });
}

/**
 * Returns the bytes in the log at `logPath`, from the last saved position and the records after it. Cuts an incomplete
 * record off the end of the file. Undefined: no position was saved, or it is invalid.
 */
export async function recoverLogPosition(path: string, logPath: string): Promise<LoggedBytes | undefined> {
  const position = await readPosition(path);
  if (position === undefined) return undefined;
  await using file = await openByIdentity(logPath, position.file);
  const size = file === undefined ? 0 : (await file.stat()).size;
  if (file === undefined || size <= position.size) return position;
  const logged = { stdout: position.stdout, stderr: position.stderr };
  const end = await countFrom(file, position.size, logged);
  if (size - end <= 2 * maxRecordBytes) await file.truncate(end); // a longer remainder is not a record of ours
  return logged;
}

/** Counts the records from a byte on; returns the offset of the end of the last whole line. */
async function countFrom(file: FileHandle, from: number, logged: Record<keyof LoggedBytes, number>): Promise<number> {
  const buffer = Buffer.allocUnsafe(readBytes);
  let end = from;
  for (let held = 0; ;) {
    const { bytesRead } = await file.read(buffer, held, buffer.length - held, end + held);
    if (bytesRead === 0) return end;
    held += bytesRead;
    const counted = countRecords(buffer.subarray(0, held), logged);
    const whole = counted === 0 && held === buffer.length ? held : counted; // no record of ours is as long
    buffer.copyWithin(0, whole, held);
    end += whole;
    held -= whole;
  }
}

async function readPosition(path: string): Promise<LogPosition | undefined> {
  try {
    return v.parse(positionSchema, JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined;
  }
}

async function openByIdentity(logPath: string, identity: string): Promise<FileHandle | undefined> {
  const directory = dirname(logPath);
  const name = basename(logPath);
  const others = (await readdir(directory).catch(() => [])).filter((other) => other !== name).slice(0, maxSiblings);
  for (const candidate of [name, ...others]) {
    const path = join(directory, candidate);
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && found.isFile() && identityOf(found) === identity) return await open(path, 'r+');
  }
  return undefined;
}

export function identityOf({ dev, ino }: { readonly dev: number; readonly ino: number }): string {
  return `${dev}:${ino}`;
}
