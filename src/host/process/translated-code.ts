import { open, readFile } from 'node:fs/promises';

/** A range of a process's memory, in pages. */
export interface PageRange {
  readonly first: number;
  readonly count: number;
}

const pageBytes = 4096;
/** Bytes of one entry of `pagemap`, whose highest bit says that the page is in memory (pagemap.rst). */
const entryBytes = 8;
/** Most pages that are looked at: memory of a VMM's own limit on translated code is far below. */
const maxPages = 1 << 18;
/** Most ranges: QEMU has one for each 2 MiB at most. A VMM in a guest's hands could have as many as the kernel lets it. */
const maxRanges = 64;

/**
 * Finds the memory in which an emulator keeps the code that it has translated: the only memory of a VMM that is both
 * writable and executable. Empty with KVM, or when the process is gone.
 */
export async function findTranslatedCode(pid: number): Promise<readonly PageRange[]> {
  return translatedCodeIn(await readFile(`/proc/${pid}/maps`, 'latin1').catch(() => ''));
}

/** Parses /proc/PID/maps. */
export function translatedCodeIn(maps: string): readonly PageRange[] {
  return maps
    .matchAll(/^([0-9a-f]+)-([0-9a-f]+) rwx/gm)
    .take(maxRanges)
    .map(([, from = '', to = '']) => {
      const first = Number.parseInt(from, 16) / pageBytes;
      return { first, count: Number.parseInt(to, 16) / pageBytes - first };
    })
    .toArray();
}

/** Returns how much of the ranges, in ascending order, is in memory, in bytes. What is in swap does not count. */
export async function residentBytes(pid: number, ranges: readonly PageRange[]): Promise<number> {
  if (ranges.length === 0) return 0;
  await using pagemap = await open(`/proc/${pid}/pagemap`, 'r').catch(() => undefined);
  if (pagemap === undefined) return 0;
  let pages = 0;
  let left = maxPages;
  for (const run of runsOf(ranges)) {
    const [{ first }, last] = [run[0], run.at(-1) ?? run[0]];
    const halves = new Int32Array(2 * Math.min(last.first + last.count - first, left));
    left -= halves.length / 2;
    const { bytesRead } = await pagemap.read(halves, 0, halves.byteLength, first * entryBytes);
    for (const range of run) {
      const from = 2 * (range.first - first);
      const end = Math.min(from + 2 * range.count, bytesRead / 4);
      for (let at = from + 1; at < end; at += 2) if ((halves[at] ?? 0) < 0) pages += 1; // the highest bit is the sign
    }
  }
  return pages * pageBytes;
}

type Run = [PageRange, ...PageRange[]];

/** Joins ranges with only a guard page between them, as QEMU makes them: each read is handed to another thread and back. */
function runsOf(ranges: readonly PageRange[]): readonly Run[] {
  const runs: Run[] = [];
  for (const range of ranges) {
    const run = runs.at(-1);
    const last = run?.at(-1);
    if (run !== undefined && last !== undefined && range.first - last.first - last.count <= 1) run.push(range);
    else runs.push([range]);
  }
  return runs;
}
