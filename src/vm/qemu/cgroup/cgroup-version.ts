import { realpath, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { cgroupRoot, hasCgroups2, isWithheld, podvmCgroup, weightOf } from '#host/cgroup/cgroup-tree.ts';
import type { CpuLimits } from './processor-weights.ts';

/** File names of one version of cgroups. Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst. */
export interface Version {
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
  /** Hierarchies that only count, for the figures of a pod. */
  readonly accounts: readonly string[];
  /** `limits` returns the values to write, by file name. */
  readonly cpu: { readonly root: string; readonly limits: (limits: CpuLimits) => Readonly<Record<string, string>> };
  /** `limits` returns the values for one disk (`MAJOR:MINOR`), by file name. */
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
    accounts: [],
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
    accounts: [join(cgroupRoot, 'cpuacct')],
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

/** The version that limits processes on this host. */
export async function hostVersion(): Promise<Version> {
  if (await hasCgroups2()) {
    const two = versions[2];
    const [noCpu, noDisks] = await Promise.all(['cpu', 'io'].map(isWithheld));
    const nothing = { root: cgroupRoot, limits: () => ({}) };
    return { ...two, ...(noCpu === true ? { cpu: nothing } : {}), ...(noDisks === true ? { disks: nothing } : {}) };
  }
  const one = versions[1];
  // Many hosts have both in one hierarchy, `cpu,cpuacct`, which is moved once; one without cgroups has neither.
  const resolve = (path: string) => realpath(path).catch(() => path);
  const [cpu, ...accounts] = await Promise.all([one.cpu.root, ...one.accounts].map(resolve));
  return accounts.includes(cpu ?? '') ? { ...one, accounts: [] } : one;
}

/** Errors: the kernel's. `cgroup`: relative to the root. */
export async function limitCpu({ cpu }: Version, cgroup: string, limits: CpuLimits): Promise<void> {
  for (const [file, text] of Object.entries(cpu.limits(limits))) {
    await writeFile(join(cpu.root, cgroup, file), text);
  }
}

/**
 * Gives all machines in podvm's own cgroup together the CPU weight of as many cores as the node has, relative to other
 * programs on it.
 */
export async function weighPodvmCgroup(version: Version): Promise<void> {
  await limitCpu(version, podvmCgroup, { cpuMillis: undefined, cpuShares: 1024 * availableParallelism() });
}
