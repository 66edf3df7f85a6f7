import type { Resources } from '#sandbox/sandbox.ts';
import type { LinuxContainerResources } from '../schema/api_pb.ts';

const defaultPeriodUs = 100_000n;
/** Upper limit of values. Limits above the node's are reduced when the machine is sized. */
const mostBytes = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * Converts CRI's limits, which are the values of the kernel's cgroup files; `0` and a negative quota mean none. CPU
 * sets, huge pages and swap of the host do not apply to a machine with its own memory and processors.
 */
export function resourcesOf(linux: LinuxContainerResources | undefined): Resources {
  if (linux === undefined) return {};
  const { memoryLimitInBytes: memory, cpuQuota, cpuPeriod, cpuShares, unified } = linux;
  const period = cpuPeriod > 0n ? cpuPeriod : defaultPeriodUs;
  const pids = unified['pids.max'];
  return {
    ...(memory > 0n ? { memoryLimitBytes: Number(memory < mostBytes ? memory : mostBytes) } : {}),
    ...(cpuQuota > 0n ? { cpuLimitMillis: Math.max(1, Number((cpuQuota * 1000n) / period)) } : {}),
    // Inverse of kubelet's MilliCPUToShares, rounded so that converting back gives the same shares.
    ...(cpuShares > 0n ? { cpuRequestMillis: Number((cpuShares * 1000n + 1023n) / 1024n) } : {}),
    ...(pids !== undefined && /^\d{1,9}$/.test(pids) ? { pidsLimit: Number(pids) } : {}),
  };
}

/** Score of containers of Guaranteed pods, whose requests are their limits, and of critical ones. */
const guaranteedScore = -997n;

/**
 * Memory that a container requests. CRI does not carry it, but a kubelet derives the OOM score from it (pkg/kubelet/qos,
 * GetContainerOOMScoreAdjust), so that it is known to a thousandth of the node's memory. Undefined without a request.
 */
export function memoryRequestOf(
  linux: Pick<LinuxContainerResources, 'oomScoreAdj' | 'memoryLimitInBytes'> | undefined,
  nodeBytes: number,
): Pick<Resources, 'memoryRequestBytes'> {
  const { oomScoreAdj: score = 0n, memoryLimitInBytes: limit = 0n } = linux ?? {};
  if (score === guaranteedScore && limit > 0n) return { memoryRequestBytes: Number(limit) };
  if (score < 3n || score >= 999n) return {}; // not of a Burstable pod, or a request of less than two thousandths
  return { memoryRequestBytes: Math.round(((1000 - Number(score)) * nodeBytes) / 1000) };
}

/** Returns the limits of a whole pod: its containers' sum and the overhead of its RuntimeClass. */
export function podResourcesOf(
  resources: LinuxContainerResources | undefined,
  overhead: LinuxContainerResources | undefined,
): Resources {
  const pod = resourcesOf(resources);
  const added = resourcesOf(overhead);
  const sum = (key: 'memoryLimitBytes' | 'cpuLimitMillis' | 'cpuRequestMillis') =>
    pod[key] === undefined ? {} : { [key]: pod[key] + (added[key] ?? 0) };
  return { ...pod, ...sum('memoryLimitBytes'), ...sum('cpuLimitMillis'), ...sum('cpuRequestMillis') };
}
