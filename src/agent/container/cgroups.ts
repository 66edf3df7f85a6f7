import type { CgroupResources } from '#wire/messages.ts';
import { codeOf, type Files } from '../engine/engine.ts';

type Parts = Pick<Files, 'readText' | 'writeExisting' | 'makeDirectories' | 'removeDirectory' | 'status' | 'list'>;

export const cgroupRoot = '/sys/fs/cgroup';
export const podCgroup = '/pod';

/** Figures of one cgroup; its names are the wire's. */
export interface CgroupFigures {
  readonly memoryBytes: number;
  readonly memoryPeakBytes: number;
  readonly inactiveFileBytes: number;
  readonly memoryLimitBytes?: number;
  readonly oomKills: number;
  readonly cpuUsec: number;
  readonly pids: number;
}

const maxBytes = 64 * 1024;

/** The cgroup v2 tree of the pod: `/pod`, and below it one for each container. Paths are relative to the mount. */
export class Cgroups {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Makes the pod's cgroup with its limits, and hands its controllers down. */
  makePod(resources: CgroupResources): void {
    this.#parts.makeDirectories(cgroupRoot + podCgroup);
    const controllers = this.#read(podCgroup, 'cgroup.controllers').trim().split(' ').filter(Boolean);
    for (const name of controllers)
      this.#parts.writeExisting(`${cgroupRoot}${podCgroup}/cgroup.subtree_control`, `+${name}`);
    this.limit(podCgroup, resources);
  }

  /** What is undefined stays as it is. */
  limit(path: string, resources: CgroupResources): void {
    const { memoryLimitBytes, cpuQuotaUs, cpuPeriodUs = 100_000, cpuShares, pidsLimit } = resources;
    if (memoryLimitBytes !== undefined) this.#write(path, 'memory.max', String(memoryLimitBytes));
    if (cpuQuotaUs !== undefined) this.#write(path, 'cpu.max', `${cpuQuotaUs} ${cpuPeriodUs}`);
    if (cpuShares !== undefined) this.#write(path, 'cpu.weight', String(weightOf(cpuShares)));
    if (pidsLimit !== undefined) this.#write(path, 'pids.max', String(pidsLimit));
  }

  oomKills(path: string): number {
    return this.#figure(path, 'memory.events', 'oom_kill');
  }

  figures(path: string): CgroupFigures {
    const limit = this.#read(path, 'memory.max').trim();
    return {
      memoryBytes: this.#number(path, 'memory.current'),
      memoryPeakBytes: this.#number(path, 'memory.peak'),
      inactiveFileBytes: this.#figure(path, 'memory.stat', 'inactive_file'),
      ...(limit === 'max' || limit === '' ? {} : { memoryLimitBytes: Number(limit) }),
      oomKills: this.oomKills(path),
      cpuUsec: this.#figure(path, 'cpu.stat', 'usage_usec'),
      pids: this.#number(path, 'pids.current'),
    };
  }

  /** SIGKILL to every process in it. */
  kill(path: string): void {
    if (this.#parts.status(cgroupRoot + path) !== undefined) this.#write(path, 'cgroup.kill', '1');
  }

  pids(path: string): number[] {
    return this.#read(path, 'cgroup.procs').split('\n').filter(Boolean).map(Number);
  }

  isPopulated(path: string): boolean {
    return this.#figure(path, 'cgroup.events', 'populated') !== 0;
  }

  /** False while a process is left in it. */
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

  #write(path: string, file: string, text: string): void {
    this.#parts.writeExisting(`${cgroupRoot}${path}/${file}`, text);
  }

  /** Empty if there is no such file: the container is gone, or the kernel lacks the controller. */
  #read(path: string, file: string): string {
    try {
      return this.#parts.readText(`${cgroupRoot}${path}/${file}`, maxBytes);
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENODEV' || codeOf(error) === 'EOPNOTSUPP') return '';
      throw error;
    }
  }

  #number(path: string, file: string): number {
    return Number(this.#read(path, file).trim()) || 0;
  }

  #figure(path: string, file: string, key: string): number {
    for (const line of this.#read(path, file).split('\n'))
      if (line.startsWith(`${key} `)) return Number(line.slice(key.length + 1));
    return 0;
  }
}

/** cgroup v1's 2 to 262144 to v2's 1 to 10000, as runc and crun convert it. */
export const weightOf = (shares: number): number =>
  Math.round(1 + ((Math.min(Math.max(shares, 2), 262_144) - 2) * 9999) / 262_142);
