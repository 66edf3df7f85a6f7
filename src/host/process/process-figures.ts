import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { cpuSecondsOf, statFields } from './process-stat.ts';

/** Counters of one process in the host's kernel. */
export interface ProcessFigures {
  /** Resident anonymous and shared memory, which is free when the process ends. */
  readonly privateBytes: number;
  /** Resident memory of files, which other processes share. */
  readonly sharedBytes: number;
  /** Memory in the host's swap. */
  readonly swapBytes: number;
  readonly minorFaults: number;
  /** Page faults that waited for a disk. */
  readonly majorFaults: number;
  readonly cpuSeconds: number;
  /** Bytes that it has read from and written to the host's disks. */
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** Time that the scheduler has given to one thread. */
export interface ThreadTime {
  readonly cpuSeconds: number;
  /** Time in which the thread was ready to run but waited for a processor. */
  readonly waitSeconds: number;
}

/**
 * Reads the figures of a process; undefined when it is gone. Bytes of disks are 0 where only root may know them
 * (proc_pid_io(5)): those of a VMM in the namespaces of an ordinary user. The kernel's counters are exact to some 100 KiB; reading
 * `smaps_rollup` would walk page tables for milliseconds each time. These files are read synchronously: they use no disk and
 * wait for no lock on the process's memory, and handing a read to another thread takes longer than the read.
 */
export function readProcessFigures(pid: number): ProcessFigures | undefined {
  const [status, stat] = [textOf(`/proc/${pid}/status`), textOf(`/proc/${pid}/stat`)];
  const io = textOf(`/proc/${pid}/io`, 'EACCES');
  if (status === undefined || stat === undefined || io === undefined) return undefined;
  return parseProcessFigures(status, stat, io);
}

/** Undefined when the file cannot be read, and empty when that is for the reason `empty`. */
function textOf(path: string, empty?: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === empty ? '' : undefined;
  }
}

export function parseProcessFigures(status: string, stat: string, io: string): ProcessFigures {
  const memory = numbersOf(status);
  const bytes = (...names: readonly string[]) => 1024 * names.reduce((sum, name) => sum + (memory.get(name) ?? 0), 0);
  const field = statFields(stat);
  const disks = numbersOf(io);
  return {
    privateBytes: bytes('RssAnon', 'RssShmem'),
    sharedBytes: bytes('RssFile'),
    swapBytes: bytes('VmSwap'),
    minorFaults: Number(field(10) ?? 0),
    majorFaults: Number(field(12) ?? 0),
    cpuSeconds: cpuSecondsOf(field),
    readBytes: disks.get('read_bytes') ?? 0,
    writtenBytes: disks.get('write_bytes') ?? 0,
  };
}

/** Parses lines of `Name: number`, with or without a unit. */
const numbersOf = (text: string): ReadonlyMap<string, number> =>
  new Map([...text.matchAll(/^(\w+):\s+(\d+)/gm)].map(([, name = '', number]) => [name, Number(number)]));

/** Sums the times of threads. Threads that are gone count as 0. */
export function readThreadTimes(pid: number, threads: readonly number[]): ThreadTime {
  const texts = threads.map((thread) => textOf(`/proc/${pid}/task/${thread}/schedstat`) ?? '0 0 0');
  const times = texts.map((text) => text.split(' ').map((ns) => Number(ns) / 1e9));
  const sumOf = (at: number) => times.reduce((sum, time) => sum + (time[at] ?? 0), 0);
  return { cpuSeconds: sumOf(0), waitSeconds: sumOf(1) };
}

/**
 * Returns the threads of a process in a pid namespace of its own, by their ids in it. Threads that are gone are left
 * out.
 */
export async function threadsByInnerIds(pid: number, innerIds: readonly number[]): Promise<readonly number[]> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const found = await Promise.all(
    threads.map(async (thread) => {
      const status = await readFile(`/proc/${pid}/task/${thread}/status`, 'latin1').catch(() => '');
      const inner = Number(/^NSpid:.*\t(\d+)$/m.exec(status)?.[1]);
      return innerIds.includes(inner) ? [Number(thread)] : [];
    }),
  );
  return found.flat();
}
