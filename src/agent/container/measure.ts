import type { DeviceFigures, MetricFigures } from '#wire/figures.ts';
import { limits } from '#wire/limits.ts';
import type { Files } from '#engine/engine.ts';
import type { Cgroups } from './cgroups.ts';

type Parts = Pick<Files, 'readText' | 'readLink'>;

const maxBytes = 4096;

/** All figures that the kernel counts for a cgroup. */
export function measureCgroup(parts: Parts, cgroups: Cgroups, path: string): MetricFigures {
  const tables = cgroups.tables(path);
  const { cpu, memory, events } = tables;
  const pidsLimit = cgroups.read(path, 'pids.max').trim();
  const pressure = pressureOf(cgroups, path);
  return {
    ...cgroups.figures(path, tables),
    cpuUserUsec: cpu.get('user_usec') ?? 0,
    cpuSystemUsec: cpu.get('system_usec') ?? 0,
    cpuPeriods: cpu.get('nr_periods') ?? 0,
    cpuThrottledPeriods: cpu.get('nr_throttled') ?? 0,
    cpuThrottledUsec: cpu.get('throttled_usec') ?? 0,
    cacheBytes: memory.get('file') ?? 0,
    mappedFileBytes: memory.get('file_mapped') ?? 0,
    activeFileBytes: memory.get('active_file') ?? 0,
    kernelBytes: memory.get('kernel') ?? 0,
    memoryLimitHits: events.get('max') ?? 0,
    ...(/^\d+$/.test(pidsLimit) ? { pidsLimit: Number(pidsLimit) } : {}),
    ...(pressure === undefined ? {} : { pressure }),
    devices: parseDevices(cgroups.read(path, 'io.stat'), (number) => nameOf(parts, number)),
    interfaces: [],
    ulimits: [],
  };
}

/** Adds the activity of the whole disk, since the machine's disks belong to the pod. */
export function withDisk(parts: Parts, device: DeviceFigures): DeviceFigures {
  const disk = parseDisk(readOr(() => parts.readText(`/sys/dev/block/${device.major}:${device.minor}/stat`, maxBytes)));
  return disk === undefined ? device : { ...device, disk };
}

/** Parses /sys/block/<disk>/stat (Documentation/block/stat.rst). */
export function parseDisk(text: string): DeviceFigures['disk'] {
  const figures = text.trim().split(/\s+/).map(Number);
  if (figures.length < 11 || !figures.every(Number.isSafeInteger)) return undefined;
  const [, mergedReads = 0, , readMs = 0, , mergedWrites = 0, , writeMs = 0, inFlight = 0, busyMs = 0, queueMs = 0] =
    figures;
  return { mergedReads, readMs, mergedWrites, writeMs, inFlight, busyMs, queueMs };
}

/** Parses io.stat (cgroup-v2.rst): a line for each device, `8:0 rbytes=1 wbytes=2 ...`. */
export function parseDevices(text: string, nameOfDevice: (number: string) => string): DeviceFigures[] {
  return text
    .split('\n')
    .flatMap((line): DeviceFigures[] => {
      const [, major = '', minor = '', rest = ''] = /^(\d+):(\d+) (.*)$/.exec(line) ?? [];
      const figures = new Map(rest.split(' ').map((pair) => [pair.split('=')[0], Number(pair.split('=')[1])]));
      const name = major === '' ? '' : nameOfDevice(`${major}:${minor}`);
      if (!figures.has('rbytes') || !/^[a-z][a-z0-9]{0,31}$/.test(name)) return [];
      const figure = (key: string) => figures.get(key) ?? 0;
      return [
        {
          major: Number(major),
          minor: Number(minor),
          name,
          readBytes: figure('rbytes'),
          reads: figure('rios'),
          writtenBytes: figure('wbytes'),
          writes: figure('wios'),
          discardedBytes: figure('dbytes'),
        },
      ];
    })
    .slice(0, limits.maxDisks);
}

function pressureOf(cgroups: Cgroups, path: string): MetricFigures['pressure'] {
  const [cpu, memory, io] = ['cpu', 'memory', 'io'].map((name) =>
    parsePressure(cgroups.read(path, `${name}.pressure`)),
  );
  return cpu === undefined || memory === undefined || io === undefined ? undefined : { cpu, memory, io };
}

/** Parses `cpu.pressure` and similar files (Documentation/accounting/psi.rst). */
export function parsePressure(text: string): { someUsec: number; fullUsec: number } | undefined {
  const total = (kind: string) => Number(new RegExp(`^${kind} .*total=(\\d+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
  const [someUsec, fullUsec] = [total('some'), total('full')];
  return Number.isSafeInteger(someUsec) && Number.isSafeInteger(fullUsec) ? { someUsec, fullUsec } : undefined;
}

/** Returns the name of a device by its number: `sda` for `8:0`. */
function nameOf(parts: Parts, number: string): string {
  return (
    readOr(() => parts.readLink(`/sys/dev/block/${number}`))
      .split('/')
      .at(-1) ?? ''
  );
}

/** Returns an empty text if the disk is detached during the read. */
function readOr(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}
