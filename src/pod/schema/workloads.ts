import * as v from 'valibot';
import { claimSchema, metadata, templateMetadata } from './objects.ts';
import { podSpec } from './pod-spec.ts';
import * as s from './scalars.ts';
import { whyNotSchedule } from '../schedule.ts';

/** Objects of a cluster that make pods of a template. Their fields without effect here are in `unsupported.ts`. */
const maxPods = 256;
/** Leaves room for the suffix that makes the name of a pod. */
const maxNameChars = 240;
/** Names of a StatefulSet's pods become host names, and an API server labels them with the set's and 11 characters more. */
const maxSetNameChars = 52;

const namedBy = (maxChars: number) =>
  v.pipe(
    metadata,
    v.check(({ name }) => name.length <= maxChars, `must have a name of at most ${maxChars} characters`),
  );
const named = namedBy(maxNameChars);

const selector = v.object({
  matchLabels: v.optional(v.record(s.qualifiedName, s.labelValue), {}),
  matchExpressions: v.optional(
    s.list(v.object({ key: s.string, operator: s.string, values: v.optional(s.list(s.string, 1000)) }), 1000),
  ),
});

function templateOf(policies: readonly ('Always' | 'OnFailure' | 'Never')[]) {
  return v.pipe(
    v.object({ metadata: v.optional(templateMetadata, {}), spec: podSpec }),
    v.check(
      ({ spec: { restartPolicy } }) => policies.includes(restartPolicy),
      `must have the restartPolicy ${policies.join(' or ')}`,
    ),
  );
}
const lasting = templateOf(['Always']);
const ending = templateOf(['Never', 'OnFailure']);

/** Checks that the selector finds the template's pods, as an API server does. */
function selectsTemplate<
  T extends {
    readonly selector: v.InferOutput<typeof selector>;
    readonly template: { readonly metadata: { readonly labels: Readonly<Record<string, string>> } };
  },
>() {
  return v.check<T, string>(
    ({ selector: { matchLabels }, template: { metadata: own } }) =>
      Object.entries(matchLabels).every(([key, value]) => own.labels[key] === value),
    "must have a selector whose matchLabels are among the template's labels",
  );
}

const replicas = v.optional(s.integer(0, maxPods), 1);
const apps = v.literal('apps/v1', 'must be apps/v1');

const strategy = v.optional(v.object({ type: v.optional(s.picklist(['RollingUpdate', 'Recreate'])) }), {});
const updateStrategy = v.optional(
  v.object({
    type: v.optional(
      v.pipe(
        s.picklist(['RollingUpdate', 'OnDelete']),
        s.supported(
          (type) => type === 'RollingUpdate',
          () => 'must be RollingUpdate: `podvm apply` replaces the pods',
        ),
      ),
    ),
  }),
);

const jobFields = v.object({
  template: ending,
  selector: v.optional(selector),
  parallelism: v.optional(s.integer(1, maxPods), 1),
  completions: v.optional(s.integer(1, 1_000_000)),
  completionMode: v.optional(s.picklist(['NonIndexed', 'Indexed']), 'NonIndexed'),
  backoffLimit: v.optional(s.integer(0, s.int32Max), 6),
  activeDeadlineSeconds: v.optional(s.integer(1, s.int32Max)),
});

const jobSpec = v.pipe(
  jobFields,
  s.supported<v.InferOutput<typeof jobFields>>(
    ({ parallelism, completions }) => parallelism === 1 || completions !== undefined,
    () => 'must have completions with its parallelism: podvm does not run work queues',
  ),
);

export const jobSchema = v.object({
  apiVersion: v.literal('batch/v1', 'must be batch/v1'),
  kind: v.literal('Job'),
  metadata: named,
  spec: jobSpec,
});

export const workloadSchemas = {
  Deployment: v.object({
    apiVersion: apps,
    kind: v.literal('Deployment'),
    metadata: named,
    spec: v.pipe(v.object({ replicas, selector, template: lasting, strategy }), selectsTemplate()),
  }),
  ReplicaSet: v.object({
    apiVersion: apps,
    kind: v.literal('ReplicaSet'),
    metadata: named,
    spec: v.pipe(v.object({ replicas, selector, template: lasting }), selectsTemplate()),
  }),
  StatefulSet: v.object({
    apiVersion: apps,
    kind: v.literal('StatefulSet'),
    metadata: v.pipe(
      namedBy(maxSetNameChars),
      v.check(
        ({ name }) => v.is(s.dnsLabel, name),
        'must have a name without dots, which becomes the host names of its pods',
      ),
    ),
    spec: v.pipe(
      v.object({
        replicas,
        selector,
        template: lasting,
        updateStrategy,
        serviceName: v.optional(s.dnsLabel),
        ordinals: v.optional(v.object({ start: v.optional(s.integer(0, 1_000_000), 0) }), {}),
        volumeClaimTemplates: v.optional(
          s.keyedList(v.object({ metadata, spec: claimSchema.entries.spec }), 64, (claim) => claim.metadata.name),
          [],
        ),
      }),
      selectsTemplate(),
    ),
  }),
  DaemonSet: v.object({
    apiVersion: apps,
    kind: v.literal('DaemonSet'),
    metadata: named,
    spec: v.pipe(v.object({ selector, template: lasting, updateStrategy }), selectsTemplate()),
  }),
  Job: jobSchema,
} as const;

/** A Job gets the time in minutes after the name. */
const maxCronNameChars = 52;

export const cronJobSchema = v.object({
  apiVersion: v.literal('batch/v1', 'must be batch/v1'),
  kind: v.literal('CronJob'),
  metadata: namedBy(maxCronNameChars),
  spec: v.pipe(
    v.object({
      schedule: s.string,
      timeZone: s.unlessZero(s.string),
      startingDeadlineSeconds: v.optional(s.integer(0, s.int32Max)),
      concurrencyPolicy: v.optional(s.picklist(['Allow', 'Forbid', 'Replace']), 'Allow'),
      suspend: v.optional(s.boolean, false),
      successfulJobsHistoryLimit: v.optional(s.integer(0, maxPods), 3),
      failedJobsHistoryLimit: v.optional(s.integer(0, maxPods), 1),
      jobTemplate: v.object({ metadata: v.optional(templateMetadata, {}), spec: jobSpec }),
    }),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const why = whyNotSchedule(dataset.value);
      if (why !== undefined)
        addIssue({
          message: why,
          path: [s.fieldPath(dataset.value, why.startsWith('must be a time zone') ? 'timeZone' : 'schedule')],
        });
    }),
  ),
});
export type CronJob = v.InferOutput<typeof cronJobSchema>;

/** A workload: an object that makes pods of a template. */
export type Workload = v.InferOutput<(typeof workloadSchemas)[keyof typeof workloadSchemas]>;
export type Job = v.InferOutput<typeof jobSchema>;
/** A workload whose pods run until they are stopped. */
export type Replicated = Exclude<Workload, Job>;
