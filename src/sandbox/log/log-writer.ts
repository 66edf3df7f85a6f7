import { open, readdir, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { messageOf, PodvmError } from '#base/errors.ts';
import { encodeRecords } from './log-format.ts';
import { identityOf, saveLogPosition, type LoggedBytes } from './log-position.ts';
import type { ContainerSpec, OutputChunk } from '../sandbox.ts';

export interface LogLimits {
  /** Size in bytes above which a log file is rotated. */
  readonly maxFileBytes: number;
  /** Files of one container's log, including the current one; the oldest is deleted. */
  readonly maxFiles: number;
}

/** kubelet's defaults (containerLogMaxSize, containerLogMaxFiles): at most 50 MiB per container. */
export const defaultLogLimits: LogLimits = { maxFileBytes: 10 * 1024 * 1024, maxFiles: 5 };

/**
 * Writes one container's output as CRI log records. The current file is `<path>`; a full one is renamed to
 * `<path>.<n>`, where a higher `n` is newer, so that a reader can continue with `n + 1`.
 */
export interface LogWriter extends AsyncDisposable {
  /** Resolves when the chunk is in the file: waiting for it gives back-pressure. Errors: `exhausted`, `internal`. */
  write(chunk: OutputChunk): Promise<void>;
}

/** The file of a log, which its owner may rename. */
export interface LogFile extends LogWriter {
  /** Continues in a new file of that name. Does nothing once it is closed. */
  reopen(): Promise<void>;
}

export interface LogFileOptions {
  /** Limits above which it is rotated; absent: the caller rotates it. */
  readonly limits?: LogLimits;
  /** File in which the log's position is kept for the next process (`log-position.ts`). */
  readonly positionPath?: string;
  /** Bytes that are in the log already; default: none. */
  readonly logged?: LoggedBytes;
}

/** Bytes after which the log's position is saved again: the next process reads at most those and one write. */
const positionIntervalBytes = 256 * 1024;

/**
 * Opens a log. After a failed write, logging continues once it works again: the next record says how many bytes are
 * missing, and why. Those bytes count as logged, since they cannot be sent again.
 */
export async function openLogWriter(path: string, time: () => string, options: LogFileOptions = {}): Promise<LogFile> {
  const { limits, positionPath } = options;
  let file: FileHandle | undefined = await open(path, 'a', 0o640);
  let { size, ...inode } = await file.stat();
  let positionedAt = size;
  let next = Math.max(0, ...(await rotatedNumbers(path))) + 1;
  let last: Promise<void> = Promise.resolve();
  const logged = { stdout: options.logged?.stdout ?? 0, stderr: options.logged?.stderr ?? 0 };
  let missing = { bytes: 0, why: '' };

  /** If this fails, the last position stays, which is as good but costs more to read. */
  const keepPosition = async () => {
    positionedAt = size;
    if (positionPath === undefined) return;
    await saveLogPosition(positionPath, { file: identityOf(inode), size, ...logged }).catch(() => {});
  };
  const openNew = async () => {
    const before = file;
    file = await open(path, 'a', 0o640); // on failure the old one stays in use
    ({ size, ...inode } = await file.stat());
    await before?.close();
    await keepPosition();
  };
  const rotate = async ({ maxFiles }: LogLimits) => {
    await rename(path, `${path}.${next}`);
    const oldest = next - maxFiles + 1;
    if (oldest > 0) await rm(`${path}.${oldest}`, { force: true });
    next += 1;
    await openNew();
  };
  /** Writes all or nothing: a truncated record would be read together with the next one. */
  const append = async (records: Buffer, to: FileHandle) => {
    try {
      for (let at = 0; at < records.length;) at += (await to.write(records, at)).bytesWritten;
      size += records.length;
    } catch (error) {
      await to.truncate(size).catch(() => {});
      throw error;
    }
  };
  /**
   * Puts a notice of what is missing before `records`, once these can be written. The notice is not output and must not
   * be counted.
   */
  const withNotice = async (records: Buffer) => {
    const text = `podvm: ${missing.bytes} bytes of output are missing here: ${missing.why}\n`;
    const notice = [...encodeRecords({ stream: 'stderr', bytes: Buffer.from(text) }, time())].map((it) => it.records);
    const added = notice.reduce((sum, { length }) => sum + length, 0);
    size += added;
    await keepPosition();
    size -= added;
    return Buffer.concat([...notice, records]);
  };
  const write = async (chunk: OutputChunk) => {
    if (file === undefined) throw new PodvmError('internal', `Cannot write the log ${basename(path)}: it is closed`);
    let left = chunk.bytes.length;
    try {
      for (const { bytes, records } of encodeRecords(chunk, time())) {
        if (limits !== undefined && size > 0 && size + records.length > limits.maxFileBytes) await rotate(limits);
        await append(missing.bytes > 0 ? await withNotice(records) : records, file);
        missing = { bytes: 0, why: '' };
        logged[chunk.stream] += bytes;
        left -= bytes;
        if (size - positionedAt >= positionIntervalBytes) await keepPosition();
      }
    } catch (cause) {
      logged[chunk.stream] += left;
      const isFull = (cause as NodeJS.ErrnoException).code === 'ENOSPC';
      missing = { bytes: missing.bytes + left, why: isFull ? 'the disk was full' : messageOf(cause) };
      throw new PodvmError(isFull ? 'exhausted' : 'internal', `Cannot write the log ${basename(path)}`, { cause });
    }
  };
  await keepPosition();
  return {
    write(chunk) {
      const done = last.then(() => write(chunk));
      last = done.catch(() => {}); // the caller of this write gets the error; the next write tries again
      return done;
    },
    reopen() {
      const done = last.then(() => (file === undefined ? undefined : openNew()));
      last = done.catch(() => {});
      return done;
    },
    async [Symbol.asyncDispose]() {
      await last;
      await file?.close();
      file = undefined;
    },
  };
}

/** Numbers of the rotated files, unordered. */
export async function rotatedNumbers(path: string): Promise<number[]> {
  const prefix = `${basename(path)}.`;
  const names = await readdir(dirname(path)).catch(() => []);
  return names
    .filter((name) => name.startsWith(prefix) && /^[0-9]+$/.test(name.slice(prefix.length)))
    .map((name) => Number(name.slice(prefix.length)));
}

/** The path in its spec, or `<sandbox>/logs/<container>/<attempt>.log`, kubelet's layout. */
export function logPathOf(
  sandboxDirectory: string,
  { name, attempt, logPath }: Pick<ContainerSpec, 'name' | 'attempt' | 'logPath'>,
): string {
  return logPath ?? join(sandboxDirectory, 'logs', name, `${attempt}.log`);
}
