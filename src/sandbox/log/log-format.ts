import type { OutputChunk } from '../sandbox.ts';

/**
 * The log format of CRI (kubernetes/design-proposals: kubelet-cri-logging): one record per line,
 * `<RFC3339Nano> <stdout|stderr> <F|P> <content>`. `F` ends a line of output; after `P` the next record of the stream
 * continues it. So every byte is kept, also of output that does not end with a newline.
 */
export interface LogRecord extends OutputChunk {
  /** Time at which it was read from the container, RFC3339 with nanoseconds. */
  readonly time: string;
  /** Whether the record ends a line; its newline is part of `bytes`. */
  readonly endsLine: boolean;
}

const newline = 0x0a;
const space = 0x20;
/** Maximum bytes of content per record; longer lines become several `P` records, as containerd's do. */
export const maxRecordBytes = 16 * 1024;

/** Records that are written together. */
export interface RecordBatch {
  /** Number of bytes of output in them. */
  readonly bytes: number;
  readonly records: Buffer;
}

/** Size of records from which on the next begin another batch: those of short lines are many times as long as the lines. */
const batchBytes = 256 * 1024;

/**
 * The records of one chunk, all with the same time: one batch, unless its lines are short. Makes no object per line; Latin 1
 * has one character for each byte.
 */
export function* encodeRecords({ stream, bytes }: OutputChunk, time: string): Generator<RecordBatch> {
  const from = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const [full, partial] = [`${time} ${stream} F `, `${time} ${stream} P `];
  let records = '';
  let began = 0;
  for (let at = 0, end = 0; at < from.length; at = end) {
    end = endOfPart(from, at);
    const text = from.toString('latin1', at, end);
    const rest = text.lastIndexOf('\n') + 1;
    if (rest > 0) records += `${full}${text.slice(0, rest - 1).replace(/\n/g, `\n${full}`)}\n`;
    if (rest < text.length) records += `${partial}${text.slice(rest)}\n`;
    if (end < from.length && records.length < batchBytes) continue;
    yield { bytes: end - began, records: Buffer.from(records, 'latin1') };
    records = '';
    began = end;
  }
}

/** End of the next part to encode: at most one record's bytes, of whole lines unless a line has more. */
function endOfPart(bytes: Buffer, at: number): number {
  const end = at + maxRecordBytes;
  if (end >= bytes.length) return bytes.length;
  const last = bytes.lastIndexOf(newline, end);
  return last < at ? end : last + 1;
}

/** Parses a line of a log file (without its newline); undefined when it is not a record, as after a torn write. */
export function decodeRecord(line: Uint8Array): LogRecord | undefined {
  const afterTime = line.indexOf(space);
  const afterStream = line.indexOf(space, afterTime + 1);
  const afterTag = line.indexOf(space, afterStream + 1);
  if (afterTime <= 0 || afterStream < 0 || afterTag < 0) return undefined;
  const text = (from: number, to: number) => Buffer.from(line.subarray(from, to)).toString('latin1');
  const stream = text(afterTime + 1, afterStream);
  const tag = text(afterStream + 1, afterTag);
  if (stream !== 'stdout' && stream !== 'stderr') return undefined;
  if (tag !== 'F' && tag !== 'P') return undefined;
  const endsLine = tag === 'F';
  const content = line.subarray(afterTag + 1);
  const bytes = endsLine ? Buffer.concat([content, Buffer.of(newline)]) : Buffer.from(content);
  return { time: text(0, afterTime), stream, endsLine, bytes };
}

const streams = (['stdout', 'stderr'] as const).map((name) => ({ name, bytes: Buffer.from(` ${name} `) }));
const [tagF, tagP] = [0x46, 0x50];

/**
 * Adds the bytes of each record in a part of a log, as `decodeRecord` would return them, and returns the number of
 * bytes of its whole lines. Makes no object per line: a takeover counts 20,000 lines of a container that writes much.
 */
export function countRecords(part: Buffer, counts: Record<LogRecord['stream'], number>): number {
  let from = 0;
  for (let end = part.indexOf(newline); end >= 0; end = part.indexOf(newline, from)) {
    let at = from; // offset of the space after the time
    while (at < end && part[at] !== space) at += 1;
    const tag = part[at + 8];
    const content = at + 10;
    if (at > from && content <= end && (tag === tagF || tag === tagP) && part[at + 9] === space) {
      const stream = streams.find(({ bytes }) => isAt(part, at, bytes));
      if (stream !== undefined) counts[stream.name] += end - content + (tag === tagF ? 1 : 0);
    }
    from = end + 1;
  }
  return from;
}

function isAt(part: Buffer, at: number, bytes: Buffer): boolean {
  for (let index = 0; index < bytes.length; index += 1) if (part[at + index] !== bytes[index]) return false;
  return true;
}

/** Distance of the two clocks from which the date was set, in `ns`; smaller ones are corrections and late readings. */
const stepNs = 500_000_000n;

/**
 * Dates with nanoseconds, which run backwards only when the host's date is set back: a monotonic clock, joined with the
 * date at first and whenever that was set.
 */
export function createNanoClock(nowMs: () => number, monotonicNs: () => bigint): () => string {
  const dateNs = () => BigInt(Math.round(nowMs() * 1e6));
  let start = dateNs() - monotonicNs();
  return () => {
    const sinceNs = monotonicNs();
    const offNs = dateNs() - (start + sinceNs);
    if (offNs > stepNs || offNs < -stepNs) start += offNs;
    const ns = start + sinceNs;
    const seconds = new Date(Number(ns / 1_000_000n)).toISOString().slice(0, 19);
    return `${seconds}.${(ns % 1_000_000_000n).toString().padStart(9, '0')}Z`;
  };
}
