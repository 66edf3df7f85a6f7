import type { Resources } from '#sandbox/sandbox.ts';
import type { LinuxContainerResources } from '../schema/api_pb.ts';

const defaultPeriodUs = 100_000n;
/** No node has as much: what is above its own is cut to that where the machine is sized. */
const mostBytes = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * CRI's limits are what the kernel's cgroup files take, `0` (and a negative quota) for none. CPU sets, huge pages and
 * swap of the host mean nothing to a machine with memory and processors of its own.
 */
export function resourcesOf(linux: LinuxContainerResources | undefined): Resources {
  if (linux === undefined) return {};
  const { memoryLimitInBytes: memory, cpuQuota, cpuPeriod, cpuShares, unified } = linux;
  const period = cpuPeriod > 0n ? cpuPeriod : defaultPeriodUs;
  const pids = unified['pids.max'];
  return {
    ...(memory > 0n ? { memoryLimitBytes: Number(memory < mostBytes ? memory : mostBytes) } : {}),
    ...(cpuQuota > 0n ? { cpuLimitMillis: Math.max(1, Number((cpuQuota * 1000n) / period)) } : {}),
    // The inverse of kubelet's MilliCPUToShares, rounded so that the way back gives the same shares.
    ...(cpuShares > 0n ? { cpuRequestMillis: Number((cpuShares * 1000n + 1023n) / 1024n) } : {}),
    ...(pids !== undefined && /^\d{1,9}$/.test(pids) ? { pidsLimit: Number(pids) } : {}),
  };
}

/** What a whole pod may use: its containers' sum and what its RuntimeClass adds. */
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
