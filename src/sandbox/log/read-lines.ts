import { maxRecordBytes } from './log-format.ts';

/** Bytes of a log that are read at once. */
export const readBytes = 256 * 1024;

export type Splitter = (bytes: Buffer) => Generator<Buffer>;

/** Splits data into lines. Keeps an unfinished one, of limited length, because the file may be another program's. */
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
