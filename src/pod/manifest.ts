import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import * as v from 'valibot';
import type { Manifest, ManifestWarning } from './pods.ts';
import { configMapSchema, podSchema, secretSchema, type ConfigMap, type Pod, type Secret } from './schema/objects.ts';
import { describe } from './schema/scalars.ts';
import { nearest, unknownFields, type UnknownField } from './schema/unknown-fields.ts';
import { verdictOn } from './schema/unsupported.ts';
import { parseYaml, type YamlDocument } from './yaml-text.ts';

type Path = readonly (string | number)[];

/** One object of a manifest and where it stands. */
interface Found {
  readonly document: YamlDocument;
  readonly path: Path;
  readonly value: unknown;
}

interface Problem {
  readonly line: number;
  readonly field: string;
  readonly message: string;
}

const schemas = { Pod: podSchema, ConfigMap: configMapSchema, Secret: secretSchema } as const;
type Kind = keyof typeof schemas;

const workloads =
  /^(Deployment|StatefulSet|DaemonSet|ReplicaSet|ReplicationController|Job|CronJob|HorizontalPodAutoscaler)$/;
const maxObjects = 1000;
const maxProblems = 50;

/**
 * Reads Pods, ConfigMaps and Secrets from YAML or JSON: several documents, and `kind: List`.
 * Errors: `invalid`, naming every problem with file, line and field, at most 50.
 */
export function parseManifest(text: string, fileName: string): Manifest {
  const file = printable(fileName, 200);
  const problems: Problem[] = [];
  const warnings: ManifestWarning[] = [];
  const pods: Pod[] = [];
  const configMaps: ConfigMap[] = [];
  const secrets: Secret[] = [];
  const names = new Set<string>();
  for (const found of parseYaml(text, file).flatMap((document) => objectsOf(document))) {
    const kind = kindOf(found, problems, warnings, file);
    if (kind === undefined) continue;
    judgeUnknown(found, schemas[kind], problems, warnings, file);
    const before = problems.length;
    if (kind === 'Pod') keep(pods, v.safeParse(podSchema, found.value), found, problems);
    if (kind === 'ConfigMap') keep(configMaps, v.safeParse(configMapSchema, found.value), found, problems);
    if (kind === 'Secret') keep(secrets, v.safeParse(secretSchema, found.value), found, problems);
    if (problems.length === before) refuseSecond(kind, found, names, problems);
  }
  if (problems.length > 0) throw invalid(file, problems, warnings);
  return { pods, configMaps, secrets, warnings };
}

/** One manifest of several files. Errors: `invalid` when two of them have an object of the same name. */
export function mergeManifests(manifests: readonly Manifest[]): Manifest {
  const all = {
    pods: manifests.flatMap((it) => it.pods),
    configMaps: manifests.flatMap((it) => it.configMaps),
    secrets: manifests.flatMap((it) => it.secrets),
    warnings: manifests.flatMap((it) => it.warnings),
  };
  const names = new Set<string>();
  for (const { kind, metadata } of [...all.pods, ...all.configMaps, ...all.secrets]) {
    const name = `${kind} ${metadata.namespace}/${metadata.name}`;
    if (names.has(name)) throw new PodvmError('invalid', `Cannot read the manifests: ${name} is given twice`);
    names.add(name);
  }
  return all;
}

function objectsOf(document: YamlDocument, path: Path = [], value: unknown = document.value): Found[] {
  if (value === null || value === undefined) return [];
  if (isRecord(value) && value['kind'] === 'List' && Array.isArray(value['items'])) {
    return value['items'].flatMap((item, index) => objectsOf(document, [...path, 'items', index], item));
  }
  return [{ document, path, value }];
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The kind of an object we take; a problem or a warning for any other. */
function kindOf(found: Found, problems: Problem[], warnings: ManifestWarning[], file: string): Kind | undefined {
  const kind = isRecord(found.value) ? found.value['kind'] : undefined;
  if (typeof kind === 'string' && Object.hasOwn(schemas, kind)) return kind as Kind; // SAFE: a key of `schemas`
  const line = found.document.lineOf([...found.path, 'kind']);
  if (typeof kind !== 'string') {
    const message = isRecord(found.value)
      ? `must be Pod, ConfigMap, Secret or List, got ${describe(kind)}`
      : `must be an object with a kind, got ${describe(found.value)}`;
    problems.push({ line, field: 'kind', message });
  } else if (workloads.test(kind)) {
    const message = `${kind} is not supported: it needs Kubernetes' controllers; write its template as a Pod`;
    problems.push({ line, field: 'kind', message });
  } else if (kind === 'NetworkPolicy') {
    problems.push({ line, field: 'kind', message: 'NetworkPolicy is not supported: nothing would enforce it' });
  } else {
    const close = nearest(kind, Object.keys(schemas));
    const hint = close === undefined ? '' : `; did you mean ${close}?`;
    warnings.push({ file, line, field: 'kind', message: `${printable(kind, 80)} is ignored${hint}` });
  }
  return undefined;
}

function judgeUnknown(found: Found, schema: object, problems: Problem[], warnings: ManifestWarning[], file: string) {
  for (const unknown of unknownFields(schema, found.value)) {
    const verdict = verdictOn(unknown.path, unknown.value);
    const line = found.document.lineOfKey([...found.path, ...unknown.path]);
    const field = fieldName(unknown.path);
    if (verdict === undefined) warnings.push({ file, line, field, message: unknownMessage(unknown) });
    else if (verdict.kind === 'refuse') problems.push({ line, field, message: verdict.reason });
    else if (verdict.kind === 'warn') warnings.push({ file, line, field, message: verdict.reason });
  }
}

function unknownMessage(unknown: UnknownField): string {
  return `is no field that podvm knows and is ignored${unknown.suggestion === undefined ? '' : `; did you mean ${unknown.suggestion}?`}`;
}

type Parsed<T> =
  | { readonly success: true; readonly output: T }
  | { readonly success: false; readonly issues: readonly v.BaseIssue<unknown>[] };

function keep<T>(kept: T[], parsed: Parsed<T>, found: Found, problems: Problem[]): void {
  if (parsed.success) {
    kept.push(parsed.output);
    return;
  }
  for (const issue of parsed.issues) {
    const path = (issue.path ?? []).map((item) => item.key as string | number); // SAFE: JSON has no other keys
    const field = fieldName(path);
    const line = found.document.lineOf([...found.path, ...path]);
    if (problems.some((it) => it.line === line && it.field === field && it.message === issueMessage(issue))) continue;
    problems.push({ line, field, message: issueMessage(issue) });
  }
}

function issueMessage(issue: v.BaseIssue<unknown>): string {
  if (issue.kind === 'schema' && issue.type === 'object') {
    return issue.expected === 'Object' ? `must be a mapping, got ${describe(issue.input)}` : 'is required';
  }
  return printable(issue.message);
}

function refuseSecond(kind: Kind, found: Found, names: Set<string>, problems: Problem[]): void {
  const { metadata } = v.parse(
    v.object({ metadata: v.object({ name: v.string(), namespace: v.optional(v.string()) }) }),
    found.value,
  );
  const name = `${kind} ${metadata.namespace ?? 'default'}/${metadata.name}`;
  if (names.has(name)) {
    const line = found.document.lineOf([...found.path, 'metadata', 'name']);
    problems.push({ line, field: 'metadata.name', message: `${name} is given twice` });
  }
  names.add(name);
  if (names.size === maxObjects + 1) {
    problems.push({
      line: found.document.lineOf(found.path),
      field: 'kind',
      message: `is one of more than ${maxObjects} objects`,
    });
  }
}

/** `spec.containers[0].image`; a key that is no plain word is quoted. */
function fieldName(path: Path): string {
  const name = path
    .map((step) =>
      typeof step === 'number' ? `[${step}]` : /^[A-Za-z0-9_]+$/.test(step) ? `.${step}` : `['${printable(step, 80)}']`,
    )
    .join('');
  return name === '' ? 'the whole object' : name.replace(/^\./, '');
}

function invalid(file: string, problems: readonly Problem[], warnings: readonly Problem[]): PodvmError {
  // A misspelt field is often why a required one is missing: both belong into one message.
  const lines = [...problems, ...warnings]
    .toSorted((a, b) => a.line - b.line)
    .slice(0, maxProblems)
    .map((problem) => `${file}:${problem.line}: ${problem.field}: ${problem.message}`);
  const more = problems.length > maxProblems ? `\nand ${problems.length - maxProblems} more` : '';
  const count = problems.length === 1 ? 'it has a problem' : `it has ${problems.length} problems`;
  return new PodvmError('invalid', `Cannot use ${file}: ${count}\n${lines.join('\n')}${more}`);
}
