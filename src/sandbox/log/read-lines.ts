import type { FileHandle } from 'node:fs/promises';
import { maxRecordBytes } from './log-format.ts';

/** Bytes of a log that are read at a time. */
export const readBytes = 256 * 1024;

/** The whole lines of a log from byte `from` on, without their newlines. */
export async function* readLines(file: FileHandle, from: number): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafe(readBytes);
  const splitter = createSplitter();
  for (let at = from; ;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield* splitter(buffer.subarray(0, bytesRead));
  }
}

export type Splitter = (bytes: Buffer) => Generator<Buffer>;

/** Cuts what is read into lines; keeps an unfinished one, of which a foreign file may not make us hold too much. */
export function createSplitter(): Splitter {
  let rest: Buffer = Buffer.alloc(0);
  return function* split(bytes) {
    const all = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    let from = 0;
    for (let end = all.indexOf(0x0a); end >= 0; end = all.indexOf(0x0a, from)) {
      yield all.subarray(from, end);
      from = end + 1;
    }
    rest = all.length - from > 4 * maxRecordBytes ? Buffer.alloc(0) : Buffer.from(all.subarray(from));
  };
}
