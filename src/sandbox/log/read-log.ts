import { open, watch, type FileHandle } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import { within } from '#host/wait.ts';
import { decodeRecord, type LogRecord } from './log-format.ts';
import { rotatedNumbers } from './log-writer.ts';
import { createSplitter, readBytes, type Splitter } from './read-lines.ts';

export interface ReadLogOptions {
  /** Only this many of the last existing lines. */
  readonly tailLines?: number;
  /** Waits for more until `ended` settles or the signal aborts. */
  readonly follow?: boolean;
  /** Settles when the container writes no more; without it only the signal ends following. */
  readonly ended?: Promise<unknown>;
}

/** Interval at which the file is checked, in `ms`: not every file system reports changes. */
const pollMs = 500;

/**
 * The records of a container's log, oldest first, over its rotated files. `path` is the container's `logPath`.
 * Errors: `notFound` when there is no such log. An abort ends it without an error.
 */
export async function* readLog(
  path: string,
  options: ReadLogOptions,
  signal: AbortSignal,
): AsyncGenerator<LogRecord, void, undefined> {
  if (!(await isThere(path)) && (await rotatedNumbers(path)).length === 0) {
    throw new PodvmError('notFound', `Cannot read the log ${basename(path)}: there is none`);
  }
  const skipLines = options.tailLines === undefined ? 0 : (await countLines(path, signal)) - options.tailLines;
  let lines = 0;
  for await (const record of records(path, options, signal)) {
    const isSkipped = lines < skipLines;
    if (record.endsLine) lines += 1;
    if (isSkipped) continue;
    yield record;
  }
}

async function countLines(path: string, signal: AbortSignal): Promise<number> {
  let lines = 0;
  let isOpen = false;
  for await (const record of records(path, {}, signal)) {
    isOpen = !record.endsLine;
    if (record.endsLine) lines += 1;
  }
  return lines + (isOpen ? 1 : 0);
}

/** Goes through the files `<path>.<n>` in order and then `<path>`, also while they are rotated. */
async function* records(path: string, options: ReadLogOptions, signal: AbortSignal): AsyncGenerator<LogRecord> {
  let number = await oldestNumber(path);
  using changes = watchChanges(options.follow === true ? path : undefined, options.ended, signal);
  while (!signal.aborted) {
    const isOver = changes.hasEnded(); // asked before opening, since the file may appear in between
    await using opened = await openNumber(path, number);
    if (opened === undefined) {
      if (isOver) return;
      await changes.next(); // a rotation has renamed the last file and not made the next one
      continue;
    }
    const splitter = createSplitter();
    for (;;) {
      // Asked before reading to the end, so that records written before "rotated" or "ended" are not missed.
      const isRotated = (await rotatedNumbers(path)).some((rotated) => rotated >= number);
      const hasEnded = changes.hasEnded();
      yield* readToEnd(opened, splitter, signal);
      if (isRotated) break;
      if (hasEnded || signal.aborted) return;
      await changes.next();
    }
    number += 1;
  }
}

async function oldestNumber(path: string): Promise<number> {
  const numbers = await rotatedNumbers(path);
  return numbers.length === 0 ? 1 : Math.min(...numbers);
}

/** Opens file `number`, which is `<path>.<number>` once rotated and `<path>` until then. */
async function openNumber(path: string, number: number): Promise<FileHandle | undefined> {
  for (;;) {
    const aside = await open(`${path}.${number}`).catch(() => undefined);
    if (aside !== undefined) return aside;
    const current = await open(path).catch(() => undefined);
    const numbers = await rotatedNumbers(path);
    const newest = Math.max(0, ...numbers);
    if (current !== undefined && newest === number - 1) return current;
    await current?.close();
    if (current === undefined && newest < number) return undefined;
    if (numbers.length > 0 && Math.min(...numbers) > number) number = Math.min(...numbers); // deleted before it was read
  }
}

async function* readToEnd(file: FileHandle, splitter: Splitter, signal: AbortSignal): AsyncGenerator<LogRecord> {
  const buffer = Buffer.allocUnsafe(readBytes);
  while (!signal.aborted) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) return;
    for (const line of splitter(buffer.subarray(0, bytesRead))) {
      const record = decodeRecord(line);
      if (record !== undefined) yield record;
    }
  }
}

interface Changes extends Disposable {
  hasEnded(): boolean;
  /** Resolves when the directory may have changed, following has ended, or some time has passed. */
  next(): Promise<void>;
}

function watchChanges(path: string | undefined, ended: Promise<unknown> | undefined, signal: AbortSignal): Changes {
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  let isEnded = path === undefined;
  let hasChanged = false;
  let wake: (() => void) | undefined;
  const changed = () => {
    hasChanged = true;
    wake?.();
  };
  const end = () => {
    isEnded = true;
    changed();
  };
  stopped.addEventListener('abort', end, { once: true });
  ended?.then(end, end);
  // Rejects when it is aborted, or if the host has no watches left: continues by polling.
  if (path !== undefined) notify(dirname(path), stopped, changed).catch(() => undefined);
  return {
    hasEnded: () => isEnded,
    async next() {
      if (hasChanged) {
        hasChanged = false;
        return;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await within(promise, { ms: pollMs });
      hasChanged = false;
    },
    [Symbol.dispose]: () => stop.abort(),
  };
}

async function notify(directory: string, signal: AbortSignal, changed: () => void): Promise<void> {
  for await (const _ of watch(directory, { signal })) changed();
}
