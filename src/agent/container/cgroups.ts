import type { cgroupFigures } from '#wire/figures.ts';
import type { ChangedResources } from '#wire/pod-params.ts';
import type { InferOutput } from 'valibot';
import { codeOf, type Files } from '#engine/engine.ts';

type Parts = Pick<Files, 'readText' | 'writeExisting' | 'makeDirectories' | 'removeDirectory' | 'status' | 'list'>;

export const cgroupRoot = '/sys/fs/cgroup';
export const podCgroup = '/pod';

const maxBytes = 64 * 1024;
/** Maximum inspected cgroups that a container has made below its own. */
const maxNested = 64;

type Table = ReadonlyMap<string, number>;
type CgroupTables = Readonly<Record<'cpu' | 'memory' | 'events', Table>>;

/** The cgroup v2 tree of the pod: `/pod`, and below it one for each container. Paths are relative to the mount. */
export class Cgroups {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Makes the pod's cgroup, with every controller enabled for its containers. */
  makePod(): void {
    this.#handDown('');
    this.#parts.makeDirectories(cgroupRoot + podCgroup);
    this.#handDown(podCgroup);
  }

  /** Enables controllers one by one, because the kernel accepts either all of a write or nothing. */
  #handDown(path: string): void {
    const controllers = this.read(path, 'cgroup.controllers').trim().split(' ').filter(Boolean);
    for (const name of controllers) this.#write(path, 'cgroup.subtree_control', `+${name}`);
  }

  /** Leaves undefined limits unchanged. */
  limit(path: string, resources: ChangedResources): void {
    const { memoryLimitBytes, cpuQuotaUs, cpuPeriodUs = 100_000, cpuShares, pidsLimit } = resources;
    if (memoryLimitBytes !== undefined) this.#write(path, 'memory.max', limitText(memoryLimitBytes));
    if (cpuQuotaUs !== undefined) this.#write(path, 'cpu.max', `${limitText(cpuQuotaUs)} ${cpuPeriodUs}`);
    if (cpuShares !== undefined) this.#write(path, 'cpu.weight', String(weightOf(cpuShares)));
    if (pidsLimit !== undefined) this.#write(path, 'pids.max', String(pidsLimit));
  }

  oomKills(path: string): number {
    return this.#figure(path, 'memory.events', 'oom_kill');
  }

  figures(path: string, { cpu, memory, events } = this.tables(path)): InferOutput<typeof cgroupFigures> {
    const limit = this.read(path, 'memory.max').trim();
    return {
      memoryBytes: this.#number(path, 'memory.current'),
      memoryPeakBytes: this.#number(path, 'memory.peak'),
      rssBytes: memory.get('anon') ?? 0,
      inactiveFileBytes: memory.get('inactive_file') ?? 0,
      pageFaults: memory.get('pgfault') ?? 0,
      majorPageFaults: memory.get('pgmajfault') ?? 0,
      swapBytes: this.#number(path, 'memory.swap.current'),
      ...(limit === 'max' || limit === '' ? {} : { memoryLimitBytes: Number(limit) }),
      oomKills: events.get('oom_kill') ?? 0,
      cpuUsec: cpu.get('usage_usec') ?? 0,
      pids: this.#number(path, 'pids.current'),
    };
  }

  /** Sends SIGKILL to every process in the cgroup. */
  kill(path: string): void {
    if (this.#parts.status(cgroupRoot + path) !== undefined) this.#write(path, 'cgroup.kill', '1');
  }

  pids(path: string): number[] {
    return this.read(path, 'cgroup.procs').split('\n').filter(Boolean).map(Number);
  }

  /**
   * Returns the pids in the cgroup and in those that the container has made below it; undefined if there are too many.
   */
  pidsBelow(path: string): number[] | undefined {
    const waiting = [path];
    const pids: number[] = [];
    for (let seen = 0; seen < waiting.length; seen += 1) {
      const each = waiting[seen] ?? '';
      try {
        pids.push(...this.pids(each));
        // Most have none below, and listing the directory of a cgroup returns dozens of files.
        if (this.#figure(each, 'cgroup.stat', 'nr_descendants') > 0) waiting.push(...this.#below(each));
      } catch (error) {
        if (codeOf(error) === 'EFBIG') return undefined;
        if (codeOf(error) !== 'ENOENT') throw error; // a cgroup that was just removed has no processes
      }
      if (waiting.length > maxNested) return undefined;
    }
    return pids;
  }

  #below(path: string): string[] {
    const all = this.#parts.list(cgroupRoot + path).map((name) => `${path}/${name}`);
    return all.filter((each) => this.#parts.status(cgroupRoot + each)?.kind === 'directory');
  }

  isPopulated(path: string): boolean {
    return this.#figure(path, 'cgroup.events', 'populated') !== 0;
  }

  /** Returns false while a process remains in the cgroup. */
  remove(path: string): boolean {
    const directory = cgroupRoot + path;
    if (this.#parts.status(directory) === undefined) return true;
    try {
      for (const name of this.#parts.list(directory)) {
        if (this.#parts.status(`${directory}/${name}`)?.kind === 'directory' && !this.remove(`${path}/${name}`))
          return false;
      }
      this.#parts.removeDirectory(directory);
      return true;
    } catch (error) {
      if (codeOf(error) === 'EBUSY') return false;
      if (codeOf(error) === 'ENOENT') return true;
      throw error;
    }
  }

  /** Returns an empty text if there is no such file: the container is gone, or the kernel lacks the controller. */
  read(path: string, file: string): string {
    try {
      return this.#parts.readText(`${cgroupRoot}${path}/${file}`, maxBytes);
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENODEV' || codeOf(error) === 'EOPNOTSUPP') return '';
      throw error;
    }
  }

  /** Reads the files of a cgroup that hold several figures each. */
  tables(path: string): CgroupTables {
    return {
      cpu: this.#table(path, 'cpu.stat'),
      memory: this.#table(path, 'memory.stat'),
      events: this.#table(path, 'memory.events'),
    };
  }

  /** Reads a file whose lines are a name and a number. */
  #table(path: string, file: string): Table {
    const lines = this.read(path, file).split('\n');
    return new Map(lines.map((line) => [line.slice(0, line.indexOf(' ')), Number(line.slice(line.indexOf(' ') + 1))]));
  }

  #write(path: string, file: string, text: string): void {
    this.#parts.writeExisting(`${cgroupRoot}${path}/${file}`, text);
  }

  #number(path: string, file: string): number {
    return Number(this.read(path, file).trim()) || 0;
  }

  #figure(path: string, file: string, key: string): number {
    return this.#table(path, file).get(key) ?? 0;
  }
}

/** Converts cgroup v1's 2 to 262144 to v2's 1 to 10000, as runc and crun do. */
export const weightOf = (shares: number): number =>
  Math.round(1 + ((Math.min(Math.max(shares, 2), 262_144) - 2) * 9999) / 262_142);

const limitText = (limit: number | 'none'): string => (limit === 'none' ? 'max' : String(limit));
