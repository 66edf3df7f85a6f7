import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { missingData } from './cluster-data.ts';
import { isListKind, objectsOf, type Found } from './manifest-objects.ts';
import type { Manifest, ManifestProblem, RefusedPod } from '../pods.ts';
import { withoutAbsent } from '../schema/absent.ts';
import {
  claimSchema,
  configMapSchema,
  podSchema,
  secretSchema,
  type Claim,
  type ConfigMap,
  type Pod,
  type Secret,
} from '../schema/objects.ts';
import { describe, isUnsupported } from '../schema/scalars.ts';
import { type Service, serviceSchema } from '../schema/service.ts';
import { nearest, unknownFields, type UnknownField } from '../schema/unknown-fields.ts';
import {
  type CronJob,
  cronJobSchema,
  type Job,
  type Replicated,
  type Workload,
  workloadSchemas,
} from '../schema/workloads.ts';
import { verdictOn } from '../schema/unsupported.ts';
import { isCoreKind, whySkipped } from './skipped-kinds.ts';
import { claimsOfWorkload, jobOf, podOfJob, podsOf, withClaimVolumes } from './workloads.ts';
import { publish } from './services.ts';
import { parseYaml } from './yaml-text.ts';

type Path = readonly (string | number)[];

const schemas = {
  Pod: podSchema,
  ConfigMap: configMapSchema,
  Secret: secretSchema,
  PersistentVolumeClaim: claimSchema,
  Service: serviceSchema,
  CronJob: cronJobSchema,
  ...workloadSchemas,
} as const;
const groups = { apps: ['Deployment', 'ReplicaSet', 'StatefulSet', 'DaemonSet'], batch: ['Job', 'CronJob'] } as const;
type Kind = keyof typeof schemas;
const kindNames = `${Object.keys(schemas).join(', ')} or List`;

export interface ManifestFile {
  /** Name for problems; never opened. */
  readonly name: string;
  readonly text: string;
}

const maxObjects = 1000;
const maxProblems = 50;
/** Limit of one file's warnings. */
const maxWarnings = 200;

/** The result of reading one file. */
class Reading {
  readonly file: string;
  /** Problems that refuse the whole file. */
  readonly mistakes: ManifestProblem[] = [];
  readonly warnings: ManifestProblem[] = [];
  readonly pods: Pod[] = [];
  readonly refused: RefusedPod[] = [];
  readonly configMaps: ConfigMap[] = [];
  readonly secrets: Secret[] = [];
  readonly claims: Claim[] = [];
  readonly jobs: Job[] = [];
  readonly cronJobs: CronJob[] = [];
  readonly workloads: Replicated[] = [];
  readonly names = new Set<string>();
  readonly generated: string[] = [];
  readonly #places = new Map<Pod, Found>();
  readonly #services = new Map<Service, Found>();

  constructor(file: string) {
    this.file = file;
  }

  mistake(line: number, field: string, message: string): void {
    this.mistakes.push({ file: this.file, line, field, message });
  }

  keepPod(pod: Pod, found: Found): void {
    this.pods.push(pod);
    this.#places.set(pod, found);
  }

  /** Returns the pods that it makes at once; a Job makes them as it goes. */
  keepWorkload(workload: Workload, { document, path }: Found): readonly Pod[] {
    const template = { document, path: [...path, 'spec', 'template'], value: undefined };
    if (workload.kind === 'Job') {
      this.jobs.push(workload);
      this.#places.set(podOfJob(workload, undefined, ''), template);
      return [];
    }
    const pods = podsOf(workload);
    this.workloads.push(workload);
    this.pods.push(...pods);
    this.claims.push(...claimsOfWorkload(workload));
    if (pods[0] !== undefined) this.#places.set(pods[0], template);
    return pods;
  }

  keepCronJob(cronJob: CronJob, { document, path }: Found): void {
    this.cronJobs.push(cronJob);
    const template = { document, path: [...path, 'spec', 'jobTemplate', 'spec', 'template'], value: undefined };
    this.#places.set(podOfJob(jobOf(cronJob, 0), undefined, ''), template);
  }

  get services(): readonly Service[] {
    return [...this.#services.keys()];
  }

  keepService(service: Service, found: Found): void {
    this.#services.set(service, found);
  }

  /** Returns the pods of all files with the host ports of this file's Services. */
  publishAll(pods: readonly Pod[]): readonly Pod[] {
    let published = pods;
    for (const [service, { document, path }] of this.#services) {
      const { pods: next, warnings } = publish(service, published);
      published = next;
      for (const warning of warnings)
        this.warn(document.lineOf([...path, 'kind']), 'kind', `Service ${service.metadata.name}: ${warning}`);
    }
    return published;
  }

  /** Warns of missing objects. Called after all files are read, since another file may define them. */
  warnOfMissing(given: Parameters<typeof missingData>[1]): void {
    for (const [pod, { document, path }] of this.#places) {
      for (const missing of missingData(pod, given)) {
        this.warn(document.lineOf([...path, ...missing.path]), fieldName(missing.path), missing.message);
      }
    }
  }

  warn(line: number, field: string, message: string): void {
    if (this.warnings.length < maxWarnings) this.warnings.push({ file: this.file, line, field, message });
    else if (this.warnings.length === maxWarnings) {
      this.warnings.push({ file: this.file, line, field, message: `${message}; further warnings are left out` });
    }
  }
}

/**
 * Reads the objects of `schemas` from YAML or JSON: several documents, and `kind: List`. Other objects are skipped
 * with a warning. Errors: `invalid`, listing up to 50 problems with file, line and field: mistakes, duplicate names,
 * and, if no other pod of the files can run, unsupported features.
 */
export function parseManifests(files: readonly ManifestFile[]): Manifest {
  const manifest = merged(files.map(({ name, text }) => readFile(text, printable(name, 200))));
  if (manifest.pods.length + manifest.jobs.length + manifest.cronJobs.length > 0 || manifest.refused.length === 0)
    return manifest;
  const refusals = manifest.refused.flatMap((it) => it.problems);
  throw invalid([...new Set(refusals.map((it) => it.file))].join(', '), refusals, manifest.warnings);
}

/** Reads one file. Errors: those of `parseManifests`. */
export function parseManifest(text: string, name: string): Manifest {
  return parseManifests([{ text, name }]);
}

/** Formats a problem: `web.yaml:7: spec.containers[0].image: is required`. */
export function problemText({ file, line, field, message }: ManifestProblem): string {
  return `${file}:${line}: ${field}: ${message}`;
}

function readFile(text: string, file: string): Reading {
  const reading = new Reading(file);
  for (const document of parseYaml(text, file)) {
    for (const found of objectsOf(document)) readObject(found, reading);
  }
  const { mistakes, refused, warnings } = reading;
  if (mistakes.length === 0) return reading;
  throw invalid(file, [...mistakes, ...refused.flatMap((it) => it.problems)], warnings);
}

function merged(readings: readonly Reading[]): Manifest {
  const names = new Set<string>();
  for (const name of readings.flatMap((it) => [...it.names])) {
    if (names.has(name))
      throw new PodvmError('invalid', `Cannot read the manifests: ${name} is given twice`, {
        fix: 'Remove one of the two, or run the files in separate commands.',
      });
    names.add(name);
  }
  const given = {
    configMaps: readings.flatMap((it) => it.configMaps),
    secrets: readings.flatMap((it) => it.secrets),
  };
  for (const reading of readings) reading.warnOfMissing(given);
  return {
    ...given,
    pods: readings.reduce<readonly Pod[]>(
      (pods, it) => it.publishAll(pods),
      readings.flatMap((it) => it.pods),
    ),
    claims: readings.flatMap((it) => it.claims),
    jobs: readings.flatMap((it) => it.jobs),
    cronJobs: readings.flatMap((it) => it.cronJobs),
    services: readings.flatMap((it) => it.services),
    workloads: readings.flatMap((it) => it.workloads),
    generated: readings.flatMap((it) => it.generated),
    refused: readings.flatMap((it) => it.refused),
    warnings: readings.flatMap((it) => it.warnings),
  };
}

function readObject(found: Found, reading: Reading): void {
  if (reading.names.size > maxObjects) return; // the file is refused, and an alias can repeat a workload of many pods
  const kind = kindOf(found, reading);
  if (kind === undefined) return;
  const plain = withoutAbsent(schemas[kind], found.value);
  const value = kind === 'StatefulSet' ? withClaimVolumes(plain) : plain;
  const makesPods = kind === 'Pod' || kind === 'CronJob' || isWorkload(kind);
  const before = reading.mistakes.length;
  const problems = judgeUnknown(found, schemas[kind], reading);
  const accept = <T>(parsed: Parsed<T>, keep: (object: T) => void) => {
    if (!parsed.success) problems.push(...issuesOf(parsed.issues, found, reading));
    else if (problems.length === 0) keep(parsed.output);
  };
  if (kind === 'Pod') accept(v.safeParse(podSchema, value), (pod) => reading.keepPod(pod, found));
  if (kind === 'ConfigMap') accept(v.safeParse(configMapSchema, value), (it) => reading.configMaps.push(it));
  if (kind === 'Secret') accept(v.safeParse(secretSchema, value), (it) => reading.secrets.push(it));
  if (kind === 'PersistentVolumeClaim') accept(v.safeParse(claimSchema, value), (it) => reading.claims.push(it));
  if (kind === 'CronJob') accept(v.safeParse(cronJobSchema, value), (it) => reading.keepCronJob(it, found));
  if (kind === 'Service') accept(v.safeParse(serviceSchema, value), (it) => reading.keepService(it, found));
  if (isWorkload(kind)) {
    accept<Workload>(v.safeParse(workloadSchemas[kind], value), (it) => {
      if (reading.names.has(`${kind} ${it.metadata.namespace}/${it.metadata.name}`)) return; // refused below, without its pods
      const made = reading.keepWorkload(it, found);
      for (const { metadata } of made) refuseSecond(`Pod ${metadata.namespace}/${metadata.name}`, found, reading);
    });
  }
  if (reading.mistakes.length > before || (problems.length > 0 && !makesPods)) {
    reading.mistakes.push(...problems);
    return;
  }
  const { name, generateName, namespace } = namesOf(found.value);
  if (problems.length > 0) {
    reading.refused.push({ namespace, name: name ?? `${generateName ?? ''}...`, problems });
  }
  if (name === undefined) reading.generated.push(`${kind} ${namespace}/${printable(generateName ?? '', 80)}...`);
  else refuseSecond(`${kind} ${namespace}/${name}`, found, reading);
}

const isWorkload = (kind: Kind): kind is keyof typeof workloadSchemas => Object.hasOwn(workloadSchemas, kind);

const namesSchema = v.object({
  metadata: v.object({
    name: v.nullish(v.string()),
    generateName: v.nullish(v.string()),
    namespace: v.nullish(v.string()),
  }),
});

function namesOf(value: unknown) {
  const found = v.safeParse(namesSchema, value);
  const { name, generateName, namespace } = found.success ? found.output.metadata : {};
  return {
    name: name || undefined,
    generateName: generateName ?? undefined,
    namespace: printable(namespace || 'default', 80),
  };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const groupOf = (kind: string): string | undefined =>
  Object.entries(groups).find(([, kinds]) => kinds.some((it) => it === kind))?.[0];

/** Returns the kind of a supported object; adds a mistake or a warning for any other. */
function kindOf({ document, path, value }: Found, reading: Reading): Kind | undefined {
  const line = document.lineOf([...path, 'kind']);
  if (!isRecord(value)) {
    reading.mistake(line, 'kind', `must be an object with a kind, got ${describe(value)}`);
    return undefined;
  }
  const { kind, apiVersion } = value;
  if (typeof kind !== 'string') {
    reading.mistake(line, 'kind', `must be ${kindNames}, got ${describe(kind)}`);
    return undefined;
  }
  if (isListKind(kind)) {
    reading.mistake(line, 'items', `must be a list, got ${describe(value['items'])}`);
    return undefined;
  }
  const group = typeof apiVersion === 'string' && apiVersion.includes('/') ? apiVersion.split('/')[0] : undefined;
  const isOfGroup = group !== undefined;
  // Without a group, the schema says which one it must be.
  if (Object.hasOwn(schemas, kind) && (group ?? groupOf(kind)) === groupOf(kind)) return kind as Kind; // SAFE: a key of `schemas`
  const close = isOfGroup || isCoreKind(kind) ? undefined : nearest(kind, [...Object.keys(schemas), 'List', 'PodList']);
  if (close !== undefined) {
    reading.mistake(line, 'kind', `must be ${kindNames}, got ${describe(kind)}; did you mean ${close}?`);
    return undefined;
  }
  const { name, generateName } = namesOf(value);
  const what = [kind, name ?? generateName].filter((word) => word !== undefined).map((word) => printable(word, 80));
  const why =
    isOfGroup && Object.hasOwn(schemas, kind) ? `podvm does not know ${printable(String(apiVersion), 80)}` : undefined;
  reading.warn(line, 'kind', `${what.join(' ')} is skipped: ${why ?? whySkipped(kind)}`);
  return undefined;
}

/** Warns of fields without effect; returns problems for unsupported features. */
function judgeUnknown(found: Found, schema: object, reading: Reading): ManifestProblem[] {
  const problems: ManifestProblem[] = [];
  for (const unknown of unknownFields(schema, found.value)) {
    const verdict = verdictOn(unknown.path, unknown.value);
    if (verdict?.kind === 'ignore') continue;
    const line = found.document.lineOfKey([...found.path, ...unknown.path]);
    const field = fieldName(unknown.path);
    if (verdict === undefined) reading.warn(line, field, unknownMessage(unknown));
    else if (verdict.kind === 'warn') reading.warn(line, field, verdict.reason);
    else problems.push({ file: reading.file, line, field, message: verdict.reason });
  }
  return problems;
}

function unknownMessage(unknown: UnknownField): string {
  return `is an unknown field and is ignored${unknown.suggestion === undefined ? '' : `; did you mean ${unknown.suggestion}?`}`;
}

type Parsed<T> =
  | { readonly success: true; readonly output: T }
  | { readonly success: false; readonly issues: readonly v.BaseIssue<unknown>[] };

/** Adds mistakes; returns problems for unsupported features. */
function issuesOf(issues: readonly v.BaseIssue<unknown>[], found: Found, reading: Reading): ManifestProblem[] {
  const problems: ManifestProblem[] = [];
  for (const issue of issues) {
    const path = (issue.path ?? []).map((item) => item.key as string | number); // SAFE: JSON has no other keys
    const field = fieldName(path);
    const line = found.document.lineOf([...found.path, ...path]);
    const message = issueMessage(issue);
    const list = isUnsupported(issue) ? problems : reading.mistakes;
    if (list.some((it) => it.line === line && it.field === field && it.message === message)) continue;
    list.push({ file: reading.file, line, field, message });
  }
  return problems;
}

function issueMessage(issue: v.BaseIssue<unknown>): string {
  if (issue.kind === 'schema' && /^(loose_)?object$/.test(issue.type)) {
    return issue.expected === 'Object' ? `must be a mapping, got ${describe(issue.input)}` : 'is required';
  }
  return printable(issue.message);
}

function refuseSecond(name: string, found: Found, reading: Reading): void {
  const { names } = reading;
  if (names.has(name)) {
    const line = found.document.lineOf([...found.path, 'metadata', 'name']);
    reading.mistake(line, 'metadata.name', `${name} is given twice`);
  }
  names.add(name);
  if (names.size === maxObjects + 1) {
    reading.mistake(found.document.lineOf(found.path), 'kind', `is one of more than ${maxObjects} objects`);
  }
}

/** Formats a path as `spec.containers[0].image`, with unusual keys quoted. */
function fieldName(path: Path): string {
  const name = path
    .map((step) =>
      typeof step === 'number' ? `[${step}]` : /^[A-Za-z0-9_]+$/.test(step) ? `.${step}` : `['${printable(step, 80)}']`,
    )
    .join('');
  return name === '' ? 'the whole object' : name.replace(/^\./, '');
}

function invalid(file: string, problems: readonly ManifestProblem[], warnings: readonly ManifestProblem[]): PodvmError {
  // Includes warnings: a misspelt field is often the reason for a missing one.
  const lines = [...problems, ...warnings]
    .toSorted((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1))
    .slice(0, maxProblems)
    .map(problemText);
  const more = problems.length > maxProblems ? `\nand ${problems.length - maxProblems} more` : '';
  const count = problems.length === 1 ? 'it has a problem' : `it has ${problems.length} problems`;
  return new PodvmError('invalid', `Cannot use ${file}: ${count}\n${lines.join('\n')}${more}`);
}
