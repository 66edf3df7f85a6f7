import { objectKinds, type ObjectSummary } from '#api/objects.ts';
import { jobLabel, workloadAnnotation } from '#pod/manifest/workloads.ts';
import { isHeadless, type KnownService } from '#pod/manifest/served-services.ts';
import type { Pod } from '#pod/schema/objects.ts';
import type { NamedVolumes } from '#storage/named-volumes.ts';
import type { CronJobs } from '../pods/cron-jobs.ts';
import type { Jobs, KnownJob } from '../pods/jobs.ts';
import type { NodePods } from '../pods/node-pods.ts';
import type { NodeServices } from '../pods/node-services.ts';

export interface ListedParts {
  readonly pods: Pick<NodePods, 'live' | 'ended' | 'endedSource'>;
  readonly jobs: Pick<Jobs, 'list'>;
  readonly cronJobs: Pick<CronJobs, 'list'>;
  readonly services: Pick<NodeServices, 'list'>;
  readonly volumes: NamedVolumes;
}

/** Lists the objects of files that the node has, besides Pods, by kind, namespace and name. */
export async function listObjects({
  pods,
  jobs,
  cronJobs,
  services,
  volumes,
}: ListedParts): Promise<readonly ObjectSummary[]> {
  const objects = [
    ...(await workloadsOf(pods)),
    ...jobsOf(pods, jobs),
    ...cronJobs.list(),
    ...services.list().map(serviceSummary),
    ...(await volumes.list()).map(({ namespace, name, sizeBytes }) => ({
      ...{ kind: 'PersistentVolumeClaim' as const, namespace, name, labels: {} },
      status: `${Math.ceil(sizeBytes / 2 ** 20)} MiB`,
      pods: [],
    })),
  ];
  const keyOf = ({ kind, namespace, name }: ObjectSummary) => [objectKinds.indexOf(kind), namespace, name].join('/');
  return objects.toSorted((one, other) => keyOf(one).localeCompare(keyOf(other)));
}

/** What is made of pods: those that run, and those that are due to be started again. */
async function workloadsOf(pods: ListedParts['pods']): Promise<readonly ObjectSummary[]> {
  const found = new Map<string, ObjectSummary>();
  const readies = new Map<string, number>();
  const add = ({ metadata: { namespace, name, annotations, labels } }: Pod, isReady: boolean) => {
    const [word, workload] = annotations[workloadAnnotation]?.split('/') ?? [];
    const kind = objectKinds.find((known) => known === word);
    if (kind === undefined || kind === 'Job' || workload === undefined) return;
    const key = `${kind}/${namespace}/${workload}`;
    const ready = (readies.get(key) ?? 0) + (isReady ? 1 : 0);
    const names = [...(found.get(key)?.pods ?? []), name];
    readies.set(key, ready);
    const status = `${ready}/${names.length} ready`;
    found.set(key, { kind, namespace, name: workload, labels, pods: names, status });
  };
  for (const { source, pod } of pods.live())
    add(
      source.pod,
      pod.status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True'),
    );
  for (const { namespace, name, failures } of pods.ended()) {
    const source = failures === undefined ? undefined : await pods.endedSource(namespace, name);
    if (source !== undefined) add(source.pod, false);
  }
  return [...found.values()];
}

/** Jobs that go on or were applied, and those of which a pod runs, or has ended and is kept. */
function jobsOf(pods: ListedParts['pods'], jobs: ListedParts['jobs']): readonly ObjectSummary[] {
  type Labels = Readonly<Record<string, string>>;
  const found = new Map<string, ObjectSummary & { readonly counts: Record<string, number> }>();
  const add = (namespace: string, pod: string, labels: Labels, outcome: string) => {
    const name = labels[jobLabel];
    if (name === undefined) return;
    const key = nameOf({ namespace, name });
    const before = found.get(key) ?? { kind: 'Job', namespace, name, labels, pods: [], counts: {}, status: '' };
    const counts = { ...before.counts, [outcome]: (before.counts[outcome] ?? 0) + 1 };
    found.set(key, { ...before, counts, pods: [...before.pods, pod] });
  };
  for (const { namespace, name, source } of pods.live()) add(namespace, name, source.pod.metadata.labels, 'running');
  for (const { namespace, name, details, outcome } of pods.ended())
    add(namespace, name, details.labels, outcome.exitCode === 0 ? 'succeeded' : 'failed');
  const known = new Map(jobs.list().map((each) => [nameOf(each.job.metadata), each]));
  for (const [key, { job }] of known) {
    const { namespace, name, labels } = job.metadata;
    if (!found.has(key)) found.set(key, { kind: 'Job', namespace, name, labels, pods: [], counts: {}, status: '' });
  }
  const order = ['running', 'succeeded', 'failed'];
  return [...found.values()].map(({ counts, ...summary }) => {
    const ofPods = order.flatMap((word) => (counts[word] === undefined ? [] : [`${counts[word]} ${word}`]));
    const state = stateOf(known.get(nameOf(summary)), counts);
    return { ...summary, status: [...(state === undefined ? [] : [state]), ...ofPods].join(', ') };
  });
}

const nameOf = ({ namespace, name }: { readonly namespace: string; readonly name: string }) => `${namespace}/${name}`;

/** What is known of a Job besides its pods. */
function stateOf(job: KnownJob | undefined, { running }: Readonly<Record<string, number>>): string | undefined {
  if (job?.outcome !== undefined) return job.outcome.exitCode === 0 ? 'complete' : `failed: ${job.outcome.reason}`;
  return job?.run !== undefined && job.run.outcome === undefined && running === undefined ? 'waiting' : undefined;
}

function serviceSummary({ service, address }: KnownService): ObjectSummary {
  const { metadata, spec } = service;
  const ports = spec.ports.map(({ port, nodePort, protocol }) =>
    nodePort === undefined ? `${port}/${protocol}` : `${port}:${nodePort}/${protocol}`,
  );
  const where = isHeadless(service) ? 'headless' : (address ?? 'no address');
  return {
    ...{ kind: 'Service', namespace: metadata.namespace, name: metadata.name, labels: metadata.labels },
    status: [where, ...ports].join(' '),
    pods: [],
  };
}
