import { PodvmError } from '#base/errors.ts';
import type { Link } from '#link/link.ts';
import type { MetricFigures } from '#wire/figures.ts';
import type { Result } from '#wire/messages.ts';
import type { GuestContainer } from './guest-container.ts';
import type { SandboxMetrics, SandboxStats } from '../figures/sandbox-stats.ts';

type Containers = readonly Pick<GuestContainer, 'status' | 'spec'>[];

/** Returns figures of known containers only, since a guest may report others. */
export function statsOf(
  { agentRssKiB, agentFds, pod, ...rest }: Result<'stats'>,
  containers: Containers,
): SandboxStats {
  const names = new Map(containers.map(({ status, spec }) => [status.id, spec.name]));
  return {
    agentRssKiB,
    agentFds,
    ...figuresOf(pod),
    containers: rest.containers.flatMap(({ id, layer, ...figures }) => {
      const name = names.get(id);
      const space = layer === undefined ? {} : { layer };
      return name === undefined ? [] : [{ id, name, ...figuresOf(figures), oomKills: figures.oomKills, ...space }];
    }),
    volumes: rest.volumes,
    interfaces: rest.interfaces,
  };
}

function figuresOf({ memoryLimitBytes, ...figures }: Result<'stats'>['pod']) {
  const { memoryBytes, rssBytes, inactiveFileBytes, pageFaults, majorPageFaults, swapBytes, cpuUsec, pids } = figures;
  return {
    ...{ memoryBytes, rssBytes, inactiveFileBytes, pageFaults, majorPageFaults, swapBytes, cpuUsec, pids },
    ...(memoryLimitBytes === undefined ? {} : { memoryLimitBytes }),
  };
}

/** Measures one container after the other: the agent does one thing at a time, and other calls wait for it. */
export async function measureGuest(
  guest: Pick<Link, 'call'>,
  containers: Containers,
  signal: AbortSignal,
): Promise<Omit<SandboxMetrics, 'dropped'>> {
  const pod = await guest.call('metrics', {}, signal);
  const measured: (MetricFigures & { readonly id: string })[] = [];
  for (const { status } of containers.filter((each) => each.status.state === 'running')) {
    try {
      const { id } = status;
      measured.push({ ...(await guest.call('metrics', { containerId: id }, signal)), id });
    } catch (error) {
      // It was removed meanwhile.
      if (!(error instanceof PodvmError) || error.kind !== 'notFound') throw error;
    }
  }
  return { pod, containers: measured };
}
