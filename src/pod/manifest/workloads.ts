import type { Claim, Pod } from '../schema/objects.ts';
import type { CronJob, Job, Replicated, Workload } from '../schema/workloads.ts';

/** Annotation of the pods that a workload makes: `Deployment/web`. */
export const workloadAnnotation = 'podvm.dev/workload';

/** Label of a Job's pods: the name of the Job. */
export const jobLabel = 'batch.kubernetes.io/job-name';

/** Name of a workload in that annotation. */
export const workloadName = ({ kind, metadata }: Workload): string => `${kind}/${metadata.name}`;

/** Pods of a workload, in the order in which they start. Their names stay the same, so that each has its own claims. */
export function podsOf(workload: Replicated): readonly Pod[] {
  return numbersOf(workload).map((number) => {
    const name = `${workload.metadata.name}-${number}`;
    const pod = podFrom(workload, name);
    return workload.kind === 'StatefulSet' ? ofSet(pod, workload, number) : pod;
  });
}

function numbersOf(workload: Replicated): readonly number[] {
  if (workload.kind === 'DaemonSet') return [0]; // the one node
  const first = workload.kind === 'StatefulSet' ? workload.spec.ordinals.start : 0;
  return Array.from({ length: workload.spec.replicas }, (_, at) => first + at);
}

/** Claims of a StatefulSet's pods, by its volumeClaimTemplates. */
export function claimsOfWorkload(workload: Workload): readonly Claim[] {
  if (workload.kind !== 'StatefulSet') return [];
  const { metadata, spec } = workload;
  return numbersOf(workload).flatMap((number) =>
    spec.volumeClaimTemplates.map((template) => ({
      apiVersion: 'v1' as const,
      kind: 'PersistentVolumeClaim' as const,
      metadata: {
        ...template.metadata,
        namespace: metadata.namespace,
        name: claimName(template.metadata.name, metadata.name, number),
      },
      spec: template.spec,
    })),
  );
}

const claimName = (template: string, set: string, number: number) => `${template}-${set}-${number}`;

/** The Job that a CronJob begins when it is due. */
export const jobOf = ({ metadata, spec: { jobTemplate } }: CronJob, dueMs: number): Job => ({
  apiVersion: 'batch/v1',
  kind: 'Job',
  metadata: {
    ...metadata,
    ...jobTemplate.metadata,
    namespace: metadata.namespace,
    name: `${metadata.name}-${Math.floor(dueMs / 60_000)}`,
  },
  spec: jobTemplate.spec,
});

/** Whether a Job of that name is one of a CronJob: `NAME-1` may be a user's own, as a time in 1970 is not. */
export const isJobOf = ({ metadata: { name } }: CronJob, job: string): boolean =>
  job.startsWith(`${name}-`) && /^\d{7,}$/.test(job.slice(name.length + 1));

/** Makes a pod of a Job. `index`: of an Indexed Job. `word`: tells it from the Job's other pods. */
export function podOfJob(job: Job, index: number | undefined, word: string): Pod {
  const { name } = job.metadata;
  if (index === undefined) return podFrom(job, `${name}-${word}`);
  const pod = podFrom(job, `${name}-${index}-${word}`);
  const key = 'batch.kubernetes.io/job-completion-index';
  const variable = { name: 'JOB_COMPLETION_INDEX', value: String(index) };
  const { metadata, spec } = pod;
  const given = <T extends { readonly env: readonly { readonly name: string }[] }>(container: T): T => ({
    ...container,
    env: [...container.env.filter((it) => it.name !== variable.name), variable],
  });
  return {
    ...pod,
    metadata: {
      ...metadata,
      labels: { ...metadata.labels, [key]: String(index) },
      annotations: { ...metadata.annotations, [key]: String(index) },
    },
    spec: { ...spec, initContainers: spec.initContainers.map(given), containers: spec.containers.map(given) },
  };
}

function podFrom(workload: Workload, name: string): Pod {
  const { metadata, spec } = workload.spec.template;
  const labels =
    workload.kind === 'Job' ? { 'job-name': workload.metadata.name, [jobLabel]: workload.metadata.name } : {};
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace: workload.metadata.namespace,
      labels: { ...metadata.labels, ...labels },
      annotations: { ...metadata.annotations, [workloadAnnotation]: workloadName(workload) },
    },
    spec,
  };
}

/** Adds what a StatefulSet gives to each pod: its labels, its domain and its claims. */
function ofSet(pod: Pod, set: Replicated & { readonly kind: 'StatefulSet' }, number: number): Pod {
  const { name } = pod.metadata;
  const { serviceName, volumeClaimTemplates } = set.spec;
  const templates = new Set(volumeClaimTemplates.map(({ metadata }) => metadata.name));
  const own = pod.spec.volumes.map((volume) =>
    templates.has(volume.name)
      ? {
          name: volume.name,
          persistentVolumeClaim: { claimName: claimName(volume.name, set.metadata.name, number), readOnly: false },
        }
      : volume,
  );
  return {
    ...pod,
    metadata: {
      ...pod.metadata,
      labels: {
        ...pod.metadata.labels,
        'statefulset.kubernetes.io/pod-name': name,
        'apps.kubernetes.io/pod-index': String(number),
      },
    },
    spec: {
      ...pod.spec,
      hostname: name,
      ...(serviceName === undefined ? {} : { subdomain: serviceName }),
      volumes: own,
    },
  };
}

/**
 * Adds a volume for each volumeClaimTemplate to the template of a StatefulSet as it is written, since the template's
 * containers mount them. Each pod gets a claim of its own (`podsOf`).
 */
export function withClaimVolumes(value: unknown): unknown {
  const spec = fieldOf(value, 'spec');
  const templates = fieldOf(spec, 'volumeClaimTemplates');
  const template = fieldOf(spec, 'template');
  const podSpec = fieldOf(template, 'spec');
  if (!Array.isArray(templates) || podSpec === undefined) return value;
  const names = templates.map((it: unknown) => fieldOf(fieldOf(it, 'metadata'), 'name'));
  const given: unknown = fieldOf(podSpec, 'volumes') ?? [];
  if (!Array.isArray(given)) return value;
  const volumes = [
    ...given.filter((it: unknown) => !names.includes(fieldOf(it, 'name'))),
    ...[...new Set(names)].map((name) => ({ name, persistentVolumeClaim: { claimName: name } })),
  ];
  return withField(
    value,
    'spec',
    withField(spec, 'template', withField(template, 'spec', withField(podSpec, 'volumes', volumes))),
  );
}

const fieldOf = (value: unknown, key: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[key] : undefined; // SAFE: any object

const withField = (value: unknown, key: string, field: unknown): unknown => ({ ...(value as object), [key]: field }); // SAFE: `fieldOf` found one in it
