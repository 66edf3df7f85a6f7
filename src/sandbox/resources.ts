import { PodvmError } from '#base/errors.ts';
import { maxScratchBytes } from '#storage/scratch-disk.ts';
import { oomScores } from '#host/process/oom-score.ts';
import type { HostLimits } from '#vm/driver.ts';
import type { Container, LimitChange, Resources } from './sandbox.ts';

const mebibyte = 1024 * 1024;

/** Sizes of sandboxes' machines. */
export interface SizeLimits {
  /** Memory of a machine that boots for a pod without a limit, in `MiB`. */
  readonly defaultMemoryMiB: number;
  /** Memory of restored machines, in `MiB`: the most that one pod may have. Untouched pages cost nothing. */
  readonly nominalMemoryMiB: number;
  /** Memory for kernel, agent and page tables besides the pod's limit, in `MiB`. */
  readonly overheadMiB: number;
  /** Memory of a VMM besides its guest's, in `MiB`: heap, caches of disks, and translated code when emulated. */
  readonly vmmOverheadMiB: number;
  /** The same for the processor, in thousandths of a core: threads of its devices, the guest's kernel, the agent. */
  readonly vmmOverheadMillis: number;
  readonly maxMemoryMiB: number;
  readonly maxVcpus: number;
  /** Scratch disk of a pod without an ephemeral-storage limit, in bytes; sparse. */
  readonly defaultScratchBytes: number;
}

/**
 * Minimum below which no container starts: crun's first process and the program itself count towards the limit.
 * Measured with a static busybox: 512 KiB is enough for `true`; with 256 KiB the guest reclaims for minutes and then
 * kills it.
 */
export const minMemoryLimitBytes = mebibyte;
/** mke2fs needs room for its tables, and a writable layer for files. */
export const minScratchBytes = 16 * mebibyte;

/** Period of the guests' CPU limits, in microseconds. */
export const cpuPeriodUs = 100_000;
/** The kernel refuses quotas below a millisecond (Documentation/scheduler/sched-bwc.rst). */
const minCpuQuotaUs = 1000;

/** Errors: `invalid` for a limit with which no program can run, with the minimum. */
export function checkResources(what: string, resources: Resources): void {
  const { memoryLimitBytes: memory, ephemeralStorageBytes: storage, pidsLimit, cpuLimitMillis } = resources;
  if (memory !== undefined && memory < minMemoryLimitBytes) {
    throw new PodvmError(
      'invalid',
      `Cannot run ${what}: a memory limit must be at least ${minMemoryLimitBytes} bytes (1Mi), ` +
        `as the first process of a container needs about that much to start, got ${memory}`,
      { fix: 'Raise resources.limits.memory; what agent and kernel of the machine need is not counted in it.' },
    );
  }
  if (storage !== undefined && storage < minScratchBytes) {
    throw new PodvmError(
      'invalid',
      `Cannot run ${what}: an ephemeral-storage limit must be at least ${minScratchBytes} bytes (16Mi), ` +
        `the smallest scratch disk, got ${storage}`,
      { fix: 'Raise resources.limits.ephemeral-storage.' },
    );
  }
  if (pidsLimit !== undefined && pidsLimit < 1) {
    throw new PodvmError('invalid', `Cannot run ${what}: a limit of processes must be at least 1, got ${pidsLimit}`, {
      fix: 'Raise the limit, or leave it out.',
    });
  }
  if (cpuLimitMillis !== undefined && cpuLimitMillis < 1) {
    throw new PodvmError('invalid', `Cannot run ${what}: a cpu limit must be at least 1m, got ${cpuLimitMillis}m`, {
      fix: 'Raise resources.limits.cpu.',
    });
  }
}

/** Maximum limits, in MiB and thousandths of a core. */
export interface Most {
  readonly memoryMiB: number;
  readonly cpuMillis: number;
}

export interface Capped<R extends LimitChange = Resources> {
  readonly resources: R;
  /** One sentence for each limit that was reduced. */
  readonly warnings: readonly string[];
}

/**
 * Reduces limits to `most`. A limit reserves nothing, so the effect is the same as for a container on the node itself.
 */
export function capResources<R extends LimitChange>(what: string, resources: R, most: Most): Capped<R> {
  const { memoryLimitBytes: memory, cpuLimitMillis: cpu } = resources;
  const warnings: string[] = [];
  const capped: { memoryLimitBytes?: number; cpuLimitMillis?: number } = {};
  if (typeof memory === 'number' && memory > most.memoryMiB * mebibyte) {
    const got = Math.ceil(memory / mebibyte);
    warnings.push(`The memory limit of ${what}, ${got} MiB, is more than there is: it has ${most.memoryMiB} MiB`);
    capped.memoryLimitBytes = most.memoryMiB * mebibyte;
  }
  if (typeof cpu === 'number' && cpu > most.cpuMillis) {
    warnings.push(`The cpu limit of ${what}, ${cpu}m, is more than there is: it has ${most.cpuMillis}m`);
    capped.cpuLimitMillis = most.cpuMillis;
  }
  return { resources: { ...resources, ...capped }, warnings };
}

/** Returns the largest limits of a pod, and of each container of it, on the node. */
export const mostOfNode = ({ maxMemoryMiB, overheadMiB, maxVcpus }: SizeLimits): Most => ({
  memoryMiB: maxMemoryMiB - overheadMiB,
  cpuMillis: maxVcpus * 1000,
});

export interface MachineSize {
  /** Size of a machine that boots. */
  readonly memoryMiB: number;
  readonly vcpus: number;
  /** Size of a restored machine; undefined for a pod that needs more than templates have. */
  readonly nominal: { readonly memoryMiB: number; readonly vcpus: number } | undefined;
  readonly scratchBytes: number;
  /** The pod's limits, reduced to what the node has. */
  readonly resources: Resources;
  /** Sentences about the limits that were reduced. */
  readonly warnings: readonly string[];
}

/** The machine size for the pod's limits. Errors: `invalid`. */
export function machineSizeOf(what: string, wantedResources: Resources, limits: SizeLimits): MachineSize {
  checkResources(what, wantedResources);
  const { resources, warnings } = capResources(what, wantedResources, mostOfNode(limits));
  const { memoryLimitBytes, cpuLimitMillis, ephemeralStorageBytes } = resources;
  const wanted =
    memoryLimitBytes === undefined
      ? Math.min(limits.defaultMemoryMiB, limits.maxMemoryMiB)
      : Math.ceil(memoryLimitBytes / mebibyte) + limits.overheadMiB;
  const vcpus = cpuLimitMillis === undefined ? limits.maxVcpus : Math.ceil(cpuLimitMillis / 1000);
  return {
    memoryMiB: Math.max(minMachineMiB, wanted),
    vcpus: Math.max(1, Math.min(vcpus, limits.maxVcpus)),
    nominal:
      memoryLimitBytes !== undefined && wanted > limits.nominalMemoryMiB
        ? undefined
        : { memoryMiB: limits.nominalMemoryMiB, vcpus: limits.maxVcpus },
    scratchBytes: Math.min(ephemeralStorageBytes ?? limits.defaultScratchBytes, maxScratchBytes),
    resources,
    warnings,
  };
}

/**
 * Returns the limits of a VMM: the pod's limits plus the overhead of kernel, agent and VMM; without a memory limit, the
 * size of the machine plus the VMM's overhead. The guest's cgroup enforces the pod's own limits: these are for a
 * compromised guest or emulator.
 */
export function hostLimitsOf(
  { memoryLimitBytes, cpuLimitMillis, cpuRequestMillis = 0, oomScoreAdj = oomScores.first }: Resources,
  machineMiB: number,
  { overheadMiB, vmmOverheadMiB, vmmOverheadMillis }: SizeLimits,
): HostLimits {
  const all = (machineMiB + vmmOverheadMiB) * mebibyte;
  const limited = (memoryLimitBytes ?? all) + (overheadMiB + vmmOverheadMiB) * mebibyte;
  return {
    memoryBytes: Math.min(all, limited),
    cpuMillis: cpuLimitMillis === undefined ? undefined : cpuLimitMillis + vmmOverheadMillis,
    cpuShares: sharesOf(cpuRequestMillis + minRequestMillis),
    oomScoreAdj,
  };
}

/** Minimum for a pod that requests nothing, so that its agent can answer. */
const minRequestMillis = 100;

/** Smallest machine: at boot the initial RAM disk is in memory both packed and unpacked. */
export const minMachineMiB = 192;

/** Memory that a pod requests, itself or by its containers; undefined if none is known. */
export function memoryRequestOf({
  resources,
  containers,
}: {
  readonly resources: Resources;
  readonly containers: readonly Pick<Container, 'resources' | 'status'>[];
}): number | undefined {
  if (resources.memoryRequestBytes !== undefined) return resources.memoryRequestBytes;
  const requests = containers
    .filter(({ status }) => status.state !== 'exited')
    .flatMap(({ resources: { memoryRequestBytes: its } }) => (its === undefined ? [] : [its]));
  return requests.length === 0 ? undefined : requests.reduce((sum, its) => sum + its, 0);
}

/** Returns the limits after a change. */
export function withChange(now: Resources, change: LimitChange): Resources {
  const { memoryLimitBytes: memory = now.memoryLimitBytes, cpuLimitMillis: cpu = now.cpuLimitMillis, ...rest } = change;
  const { memoryLimitBytes: _memory, cpuLimitMillis: _cpu, ...others } = now;
  return {
    ...others,
    ...rest,
    ...(memory === undefined || memory === 'none' ? {} : { memoryLimitBytes: memory }),
    ...(cpu === undefined || cpu === 'none' ? {} : { cpuLimitMillis: cpu }),
  };
}

/** Returns the change back to `now`, of the limits that a change has set. */
export function undoOf(now: Resources, { memoryLimitBytes: memory, cpuLimitMillis: cpu }: LimitChange): LimitChange {
  return {
    ...(memory === undefined ? {} : { memoryLimitBytes: now.memoryLimitBytes ?? 'none' }),
    ...(cpu === undefined ? {} : { cpuLimitMillis: now.cpuLimitMillis ?? 'none' }),
  };
}

interface CgroupLimits<None> {
  memoryLimitBytes?: number | None;
  cpuQuotaUs?: number | None;
  cpuPeriodUs?: number;
  cpuShares?: number;
  pidsLimit?: number;
}

/** Limits for the guest's cgroups. */
export function cgroupResourcesOf(resources: Resources): CgroupLimits<never>;
export function cgroupResourcesOf(change: LimitChange): CgroupLimits<'none'>;
export function cgroupResourcesOf(resources: LimitChange): CgroupLimits<'none'> {
  const { memoryLimitBytes, cpuLimitMillis, cpuRequestMillis, pidsLimit } = resources;
  return {
    ...(memoryLimitBytes === undefined ? {} : { memoryLimitBytes }),
    ...(cpuLimitMillis === undefined
      ? {}
      : { cpuQuotaUs: cpuLimitMillis === 'none' ? cpuLimitMillis : quotaOf(cpuLimitMillis), cpuPeriodUs }),
    ...(cpuRequestMillis === undefined ? {} : { cpuShares: sharesOf(cpuRequestMillis) }),
    ...(pidsLimit === undefined ? {} : { pidsLimit }),
  };
}

const quotaOf = (millis: number): number => Math.max(minCpuQuotaUs, (millis * cpuPeriodUs) / 1000);

/** kubelet's MilliCPUToShares */
export const sharesOf = (millis: number) => Math.min(262_144, Math.max(2, Math.floor((millis * 1024) / 1000)));
