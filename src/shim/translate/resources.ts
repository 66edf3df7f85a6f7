import type { Resources } from '#sandbox/sandbox.ts';
import type { OciResources } from '../bundle/oci-spec.ts';

const defaultPeriodUs = 100_000;

/** Converts OCI's limits; zero and negative ones mean none. The host's CPU sets do not apply to a machine. */
export function resourcesOf(linux: OciResources | null | undefined): Resources {
  const memory = linux?.memory?.limit ?? 0;
  const { quota, period, shares } = linux?.cpu ?? {};
  const pids = linux?.pids?.limit ?? Number(linux?.unified?.['pids.max'] ?? 0);
  return {
    ...(memory > 0 ? { memoryLimitBytes: Math.min(memory, Number.MAX_SAFE_INTEGER) } : {}),
    ...cpuLimitOf(quota ?? 0, period ?? 0),
    ...cpuRequestOf(shares ?? 0),
    ...(Number.isSafeInteger(pids) && pids > 0 ? { pidsLimit: pids } : {}),
  };
}

/** Returns the limits of a whole pod, which containerd's CRI passes as annotations of its sandbox. */
export function podResourcesOf(annotations: Readonly<Record<string, string>>): Resources {
  const number = (name: string) => Number(annotations[`io.kubernetes.cri.sandbox-${name}`] ?? 0) || 0;
  return resourcesOf({
    memory: { limit: number('memory') },
    cpu: { quota: number('cpu-quota'), period: number('cpu-period'), shares: number('cpu-shares') },
    unified: {},
    devices: [],
  });
}

function cpuLimitOf(quota: number, period: number): Pick<Resources, 'cpuLimitMillis'> {
  const periodUs = period > 0 ? period : defaultPeriodUs;
  return quota > 0 ? { cpuLimitMillis: Math.max(1, Math.floor((quota * 1000) / periodUs)) } : {};
}

/** Inverse of kubelet's MilliCPUToShares, rounded so that converting back gives the same shares. */
function cpuRequestOf(shares: number): Pick<Resources, 'cpuRequestMillis'> {
  return shares > 0 ? { cpuRequestMillis: Math.ceil((shares * 1000) / 1024) } : {};
}
