import { constants } from 'node:fs';
import { open, readFile, readlink } from 'node:fs/promises';
import { requestBounds, type RequestKind, requestKinds, requestPage } from '#base/file-requests.ts';
import type { HistogramReading } from '#base/histogram.ts';

/** Figures of one file server. */
export interface FileServerFigures {
  /** Durations of its requests, in seconds. */
  readonly requests: Readonly<Record<RequestKind, HistogramReading>>;
  /** Age of the oldest request under way, in seconds; 0 without one. */
  readonly oldestSeconds: number;
  /** Memory that only it uses. */
  readonly privateBytes: number;
}

/**
 * Reads the figures of a file server; undefined if it is gone, or of a version without them. The process may be in a
 * hostile guest's hands: what it counts is only shown, and the read takes a bounded number of bytes of memory, and
 * opens nothing that could block, even if the process exchanges its descriptors meanwhile.
 */
export async function readFileServerFigures(pid: number, nowNs: bigint): Promise<FileServerFigures | undefined> {
  const [page, statm] = await Promise.all([
    readPage(`/proc/${pid}/fd/${requestPage.fd}`).catch(() => undefined),
    readFile(`/proc/${pid}/statm`, 'latin1').catch(() => ''),
  ]);
  if (page === undefined) return undefined;
  return { ...parseRequestPage(page, nowNs), privateBytes: privateBytesOf(statm) };
}

/** O_PATH of open(2), which Node does not have: a descriptor for what a path names, which is not opened. */
const onlyNamed = 0o10000000;

async function readPage(path: string): Promise<Buffer | undefined> {
  const isPage = async (link: string) => (await readlink(link)) === `/memfd:${requestPage.name} (deleted)`;
  if (!(await isPage(path))) return undefined;
  await using named = await open(path, onlyNamed);
  const own = `/proc/self/fd/${named.fd}`; // what it names cannot be exchanged
  if (!(await isPage(own))) return undefined;
  await using file = await open(own, constants.O_RDONLY | constants.O_NONBLOCK);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(requestPage.bytes), 0, requestPage.bytes, 0);
  return bytesRead === requestPage.bytes ? buffer : undefined;
}

const nsInSecond = 1e9;

export function parseRequestPage(page: Buffer, nowNs: bigint): Omit<FileServerFigures, 'privateBytes'> {
  const word = (at: number) => page.readBigUInt64LE(8 * at);
  const began = word(0);
  const oldestSeconds = began === 0n || began > nowNs ? 0 : Number(nowNs - began) / nsInSecond;
  const readingOf = (kind: number): HistogramReading => {
    const start = requestPage.kindsAt + kind * requestPage.wordsOfKind;
    let count = 0;
    const buckets = requestBounds.map((upTo, at) => ({ upTo, count: (count += Number(word(start + at))) }));
    count += Number(word(start + requestBounds.length));
    return { buckets, count, sum: Number(word(start + requestBounds.length + 1)) / nsInSecond };
  };
  const requests = Object.fromEntries(requestKinds.map((kind, at) => [kind, readingOf(at)]));
  return { requests: requests as Record<RequestKind, HistogramReading>, oldestSeconds }; // SAFE: made of all kinds
}

/**
 * Mean time of the requests that have ended between two readings, and of the oldest under way, in seconds; 0 without one.
 * Locks and closing do not count: a lock may rightly wait for long.
 */
export function meanSecondsBetween(before: FileServerFigures, after: FileServerFigures): number {
  const [first, last] = [workOf(before), workOf(after)];
  const count = last.count - first.count + (after.oldestSeconds > 0 ? 1 : 0);
  return count <= 0 ? 0 : Math.max(0, last.sum - first.sum + after.oldestSeconds) / count;
}

function workOf({ requests }: FileServerFigures): { readonly count: number; readonly sum: number } {
  const working = requestKinds.filter((kind) => kind !== 'other').map((kind) => requests[kind]);
  const all = (of: 'count' | 'sum') => working.reduce((sum, reading) => sum + reading[of], 0);
  return { count: all('count'), sum: all('sum') };
}

const pageBytes = 4096;

/** Resident memory less that of files and shared memory (proc_pid_statm(5)). */
function privateBytesOf(statm: string): number {
  const [, resident = 0, shared = 0] = statm.split(' ').map(Number);
  return Math.max(0, resident - shared) * pageBytes;
}
