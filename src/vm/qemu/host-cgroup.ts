import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { isThere } from '#host/files.ts';
import { cgroupRoot, hasCgroups2, podvmCgroup as parent, removeWhenEmpty, weightOf } from '#host/cgroup-tree.ts';
import type { HostLimits } from '../driver.ts';
import { type CpuLimits, processorWeights } from './processor-weights.ts';

/**
 * The host cgroup of one VMM. It limits the VMM's memory, processor time and threads, regardless of guest and emulator.
 * Supports cgroups version 2, version 1, and hosts with both, whose controllers are on version 1. Without a delegated
 * cgroup a VMM runs unlimited.
 */
export interface HostCgroup {
  /** Changes the limits. Errors: the kernel's, when more memory is in use (version 1). */
  limit(limits: HostLimits): Promise<void>;
  /**
   * Moves in a process that works for the VMM and raises the memory limit by `memoryBytes`. Dispose the result after
   * the process has ended. Errors: the kernel's, but none if the process is gone.
   */
  add(pid: number, memoryBytes: number): Promise<AsyncDisposable>;
  /** Returns whether the kernel has killed the VMM for lack of memory. */
  wasOutOfMemory(): Promise<boolean>;
  /** Removes the cgroup. Call after the VMM is gone. */
  remove(): Promise<void>;
}

/** File names of one version. Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. */
interface Version {
  /** Mounted hierarchies, and the limiting file of each. */
  readonly memory: {
    readonly root: string;
    readonly limit: string;
    readonly events: string;
    /**
     * Written 0: disables swap. With version 1 the host still swaps when it is out of memory. Missing on kernels
     * without swap.
     */
    readonly swap: string;
  };
  readonly pids: { readonly root: string };
  /** `limits` returns the values to write, by file name. */
  readonly cpu: { readonly root: string; readonly limits: (limits: CpuLimits) => Readonly<Record<string, string>> };
  /** `limits` gives what is to be written for one disk (`MAJOR:MINOR`), by the file's name. */
  readonly disks: {
    readonly root: string;
    readonly limits: (disk: string, bytesPerSecond: number) => Readonly<Record<string, string>>;
  };
}

const cpuPeriodUs = 100_000;
const quotaOf = (millis: number) => Math.round((millis * cpuPeriodUs) / 1000);

const versions = {
  2: {
    memory: { root: cgroupRoot, limit: 'memory.max', events: 'memory.events', swap: 'memory.swap.max' },
    pids: { root: cgroupRoot },
    cpu: {
      root: cgroupRoot,
      limits: ({ cpuMillis, cpuShares }) => ({
        'cpu.weight': String(weightOf(cpuShares)),
        'cpu.max': `${cpuMillis === undefined ? 'max' : quotaOf(cpuMillis)} ${cpuPeriodUs}`,
      }),
    },
    disks: {
      root: cgroupRoot,
      limits: (disk, rate) => ({ 'io.max': `${disk} rbps=${rate} wbps=${rate}` }),
    },
  },
  1: {
    memory: {
      root: join(cgroupRoot, 'memory'),
      limit: 'memory.limit_in_bytes',
      events: 'memory.oom_control',
      swap: 'memory.swappiness',
    },
    pids: { root: join(cgroupRoot, 'pids') },
    cpu: {
      root: join(cgroupRoot, 'cpu'),
      limits: ({ cpuMillis, cpuShares }) => ({
        'cpu.shares': String(cpuShares),
        'cpu.cfs_quota_us': String(cpuMillis === undefined ? -1 : quotaOf(cpuMillis)),
      }),
    },
    disks: {
      root: join(cgroupRoot, 'blkio'),
      limits: (disk, rate) => ({
        'blkio.throttle.read_bps_device': `${disk} ${rate}`,
        'blkio.throttle.write_bps_device': `${disk} ${rate}`,
      }),
    },
  },
} as const satisfies Record<number, Version>;

/** Limit of QEMU's threads: processors, disks (at most 64) and its own. */
const maxThreads = 512;

/** What the node gives all machines alike. */
export interface NodeLimits {
  readonly maySwap: boolean;
  /** What each may read, and as much that it may write, of each disk of the node; undefined: no limit. */
  readonly diskBytesPerSecond: number | undefined;
}

/** Makes the machine's cgroups and moves its VMM into them. Errors: the kernel's, if no cgroup is delegated. */
export async function confine(
  id: string,
  pid: number,
  limits: HostLimits,
  { maySwap, diskBytesPerSecond: diskRate }: NodeLimits,
): Promise<HostCgroup> {
  const version = await hostVersion();
  await handDown(version, diskRate !== undefined);
  const cgroup = cgroupOf(version, id);
  try {
    for (const directory of directoriesOf(version, id, diskRate !== undefined))
      await mkdir(directory, { recursive: true });
    await cgroup.limit(limits);
    if (!maySwap) await keepFromSwap(version, id);
    if (diskRate !== undefined) await limitDisks(version, id, diskRate);
    await writeFile(join(version.pids.root, parent, id, 'pids.max'), String(maxThreads));
    await moveInto(version, id, pid);
    return cgroup;
  } catch (error) {
    await cgroup.remove();
    throw error;
  }
}

/** Returns the cgroup that an earlier process made for the machine, or undefined. */
export async function findHostCgroup(id: string): Promise<HostCgroup | undefined> {
  const version = await hostVersion();
  for (const directory of directoriesOf(version, id, true)) {
    if (await isThere(directory)) return cgroupOf(version, id);
  }
  return undefined;
}

function cgroupOf(version: Version, id: string): HostCgroup {
  const directory = join(version.memory.root, parent, id);
  let [ofMachine, ofHelpers] = [0, 0];
  const writeMemory = (bytes: number) => writeFile(join(directory, version.memory.limit), String(bytes));
  return {
    limit: async ({ memoryBytes, ...cpu }) => {
      await writeMemory(memoryBytes + ofHelpers);
      ofMachine = memoryBytes;
      await processorWeights.limit(id, cpu, (weighed) => limitCpu(version, join(parent, id), weighed));
    },
    add: async (pid, memoryBytes) => {
      const allow = async (bytes: number) => {
        ofHelpers += bytes;
        if (ofMachine > 0) await writeMemory(ofMachine + ofHelpers);
      };
      await allow(memoryBytes);
      let isAllowed = true;
      const takeBack = async () => {
        if (!isAllowed) return;
        isAllowed = false;
        processorWeights.left(id, pid);
        await allow(-memoryBytes).catch(() => undefined); // gone with its machine, or in use (version 1)
      };
      try {
        await moveInto(version, id, pid);
      } catch (error) {
        await takeBack();
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // ended: reported elsewhere
      }
      return { [Symbol.asyncDispose]: takeBack };
    },
    wasOutOfMemory: async () => {
      const text = await readFile(join(directory, version.memory.events), 'latin1').catch(() => '');
      return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0) > 0;
    },
    remove: async () => {
      processorWeights.forget(id);
      for (const each of directoriesOf(version, id, true)) await removeWhenEmpty(each);
    },
  };
}

/** Disables swap: keys, passwords and other guest memory would persist on the host's disk. */
async function keepFromSwap({ memory }: Version, id: string): Promise<void> {
  const path = join(memory.root, parent, id, memory.swap);
  if (await isThere(path)) await writeFile(path, '0');
}

/** Into all that are there: version 1 has one for disks where these are limited. */
async function moveInto(version: Version, id: string, pid: number): Promise<void> {
  const disks = join(version.disks.root, parent, id);
  for (const directory of directoriesOf(version, id, await isThere(disks)))
    await writeFile(join(directory, 'cgroup.procs'), String(pid));
  processorWeights.joined(id, pid);
}

/** Each of the node's whole disks: which of them holds a volume or an image is no matter. */
async function limitDisks({ disks }: Version, id: string, bytesPerSecond: number): Promise<void> {
  const names = (await readdir('/sys/block')).filter((name) => !/^(?:loop|ram|zram)\d/.test(name));
  for (const name of names) {
    const disk = (await readFile(join('/sys/block', name, 'dev'), 'latin1')).trim();
    for (const [file, text] of Object.entries(disks.limits(disk, bytesPerSecond)))
      await writeFile(join(disks.root, parent, id, file), text);
  }
}

async function limitCpu({ cpu }: Version, cgroup: string, limits: CpuLimits): Promise<void> {
  for (const [file, text] of Object.entries(cpu.limits(limits))) {
    await writeFile(join(cpu.root, cgroup, file), text);
  }
}

const directoriesOf = ({ memory, pids, cpu, disks }: Version, id: string, withDisks: boolean) =>
  [...new Set([memory.root, pids.root, cpu.root, ...(withDisks ? [disks.root] : [])])].map((root) =>
    join(root, parent, id),
  );

async function hostVersion(): Promise<Version> {
  return versions[(await hasCgroups2()) ? 2 : 1];
}

/**
 * Enables the controllers for child cgroups, which version 2 requires. Gives all machines together the CPU weight of as
 * many cores as the node has, relative to other programs on it.
 */
async function handDown(version: Version, withDisks: boolean): Promise<void> {
  const { memory, pids, cpu } = version;
  for (const root of [memory.root, cpu.root]) await mkdir(join(root, parent), { recursive: true });
  if (memory.root === pids.root) {
    for (const directory of [memory.root, join(memory.root, parent)]) {
      await writeFile(join(directory, 'cgroup.subtree_control'), `+memory +pids +cpu${withDisks ? ' +io' : ''}`);
    }
  }
  await limitCpu(version, parent, { cpuMillis: undefined, cpuShares: 1024 * availableParallelism() });
}
