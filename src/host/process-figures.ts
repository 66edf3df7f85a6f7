import { readFile } from 'node:fs/promises';

/** What the host's kernel counts of one process. */
export interface ProcessFigures {
  /** Resident memory that only this process has. */
  readonly privateBytes: number;
  /** Resident memory that other processes map, too. */
  readonly sharedBytes: number;
  /** Resident memory, with shared pages divided by their users. */
  readonly proportionalBytes: number;
  /** Memory on the host's swap. */
  readonly swapBytes: number;
  readonly minorFaults: number;
  /** Page faults that waited for a disk. */
  readonly majorFaults: number;
  readonly cpuSeconds: number;
  /** Data that it had the host's disks read and write. */
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** What the scheduler has given one thread. */
export interface ThreadTime {
  readonly cpuSeconds: number;
  /** Time in which it could have run, but waited for a processor. */
  readonly waitSeconds: number;
}

/** Of /proc/PID/stat, the same on all architectures (proc(5)). */
const ticksPerSecond = 100;

/** Reads the figures of a process; undefined when it is gone. The kernel walks page tables for it: milliseconds. */
export async function readProcessFigures(pid: number): Promise<ProcessFigures | undefined> {
  const read = (file: string) => readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => undefined);
  const [rollup, stat, io] = await Promise.all([read('smaps_rollup'), read('stat'), read('io')]);
  if (rollup === undefined || stat === undefined || io === undefined) return undefined;
  return parseProcessFigures(rollup, stat, io);
}

export function parseProcessFigures(rollup: string, stat: string, io: string): ProcessFigures {
  const memory = numbersOf(rollup);
  const bytes = (...names: readonly string[]) => 1024 * names.reduce((sum, name) => sum + (memory.get(name) ?? 0), 0);
  // The name of the program, in parentheses, may contain anything; the third field follows it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const field = (number: number) => Number(fields[number - 3] ?? 0);
  const disks = numbersOf(io);
  return {
    privateBytes: bytes('Private_Clean', 'Private_Dirty', 'Private_Hugetlb'),
    sharedBytes: bytes('Shared_Clean', 'Shared_Dirty', 'Shared_Hugetlb'),
    proportionalBytes: bytes('Pss'),
    swapBytes: bytes('Swap'),
    minorFaults: field(10),
    majorFaults: field(12),
    cpuSeconds: (field(14) + field(15)) / ticksPerSecond,
    readBytes: disks.get('read_bytes') ?? 0,
    writtenBytes: disks.get('write_bytes') ?? 0,
  };
}

/** Lines of `Name: number`, with or without a unit. */
const numbersOf = (text: string): ReadonlyMap<string, number> =>
  new Map([...text.matchAll(/^(\w+):\s+(\d+)/gm)].map(([, name = '', number]) => [name, Number(number)]));

/** Sums the times of threads; those that are gone count as nothing. */
export async function readThreadTimes(pid: number, threads: readonly number[]): Promise<ThreadTime> {
  const texts = await Promise.all(
    threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').catch(() => '0 0 0')),
  );
  const times = texts.map((text) => text.split(' ').map((ns) => Number(ns) / 1e9));
  const sumOf = (at: number) => times.reduce((sum, time) => sum + (time[at] ?? 0), 0);
  return { cpuSeconds: sumOf(0), waitSeconds: sumOf(1) };
}
