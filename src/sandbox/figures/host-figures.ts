import {
  type ProcessFigures,
  readProcessFigures,
  readThreadTimes,
  type ThreadTime,
} from '#host/process/process-figures.ts';
import { findTranslatedCode, type PageRange, residentBytes } from '#host/process/translated-code.ts';
import type { LinkTraffic } from '#link/link.ts';
import { type FileServerFigures, readFileServerFigures } from '#storage/request-figures.ts';
import type { Machine } from '#vm/driver.ts';
import type { ServedRequests } from './served-requests.ts';

/** Resources that the host spends on one sandbox. */
export interface HostFigures {
  /** Memory of its machine, used or not. */
  readonly guestMemoryBytes: number;
  /** Memory, processor time and disk traffic of its VMM. */
  readonly vmm: ProcessFigures;
  /** Times of the VMM's threads that run the machine's processors. */
  readonly vcpus: ThreadTime;
  /** The part of the VMM's memory that holds translated code; undefined where nothing is translated. */
  readonly translatedCode: TranslatedCode | undefined;
  /** Figures of the file servers of its shared volumes. */
  readonly fileServers: readonly FileServerFigures[];
  /** Requests of other file servers, which have ended or could not be read; undefined without one. */
  readonly otherRequests: FileServerFigures['requests'] | undefined;
  readonly link: LinkTraffic;
}

export interface TranslatedCode {
  readonly bytes: number;
  /** Size at which the VMM discards all of it and begins again. */
  readonly limitBytes: number;
}

/** What does not change while a machine runs: threads of its processors, and memory of translated code. */
export interface MeasuredParts {
  readonly threads: readonly number[];
  readonly code: readonly PageRange[];
}

export async function findMeasured(
  machine: Pick<Machine, 'vcpuThreads' | 'record'>,
  signal: AbortSignal,
): Promise<MeasuredParts> {
  return { threads: await machine.vcpuThreads(signal), code: await findTranslatedCode(machine.record.pid) };
}

/** File servers of a sandbox. */
export interface MeasuredServers {
  /** Their pids now. */
  readonly serverPids: readonly number[];
  readonly requests: ServedRequests;
}

/** Measures without the guest; undefined when the VMM is gone. */
export async function measureHost(
  { memoryMiB, record: { pid } }: Pick<Machine, 'memoryMiB' | 'record'>,
  { threads, code }: MeasuredParts,
  servers: MeasuredServers,
  link: LinkTraffic,
): Promise<HostFigures | undefined> {
  const [vmm, vcpus] = [readProcessFigures(pid), readThreadTimes(pid, threads)];
  const [codeBytes, figures] = await Promise.all([residentBytes(pid, code), readServers(servers.serverPids)]);
  const otherRequests = servers.requests.take(figures, servers.serverPids);
  if (vmm === undefined) return undefined;
  const fileServers = [...figures.values()];
  return {
    guestMemoryBytes: memoryMiB * 1024 * 1024,
    ...{ vmm, vcpus, fileServers, otherRequests, link },
    translatedCode: code.length === 0 ? undefined : { bytes: codeBytes, limitBytes: limitOf(code) },
  };
}

async function readServers(pids: readonly number[]): Promise<ReadonlyMap<number, FileServerFigures>> {
  const read = await Promise.all(
    pids.map(async (pid) => [pid, await readFileServerFigures(pid, process.hrtime.bigint())] as const),
  );
  return new Map(read.flatMap(([pid, figures]) => (figures === undefined ? [] : [[pid, figures] as const])));
}

const limitOf = (code: readonly PageRange[]) => code.reduce((sum, { count }) => sum + count, 0) * 4096;
