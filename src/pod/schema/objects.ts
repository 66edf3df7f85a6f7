import { randomInt } from 'node:crypto';
import * as v from 'valibot';
import { dockerLogins } from './docker-config.ts';
import { podSpec } from './pod-spec.ts';
import * as s from './scalars.ts';

/** Whole objects of a manifest, named as Kubernetes names them. */
const maxMetadataItems = 1000;
/** Kubernetes' limit on a ConfigMap's or Secret's data, in bytes. */
export const maxDataBytes = 1024 * 1024;
const maxAnnotationBytes = 256 * 1024;

/** Characters that an API server appends to generateName (apiserver/pkg/storage/names): no vowels, to avoid words. */
const generatedAlphabet = 'bcdfghjklmnpqrstvwxz2456789';
const generatedChars = 5;
const maxGenerateNameChars = 63 - generatedChars;

function generated(prefix: string): string {
  const word = Array.from({ length: generatedChars }, () => generatedAlphabet[randomInt(generatedAlphabet.length)]);
  return `${prefix.slice(0, maxGenerateNameChars)}${word.join('')}`;
}

const metadataEntries = v.object({
  name: v.optional(s.dnsSubdomain),
  generateName: v.optional(
    v.pipe(
      s.string,
      v.check(
        isGenerateName,
        (issue) => `must begin a DNS subdomain (a-z, 0-9, "-", "."), got ${s.describe(issue.input)}`,
      ),
    ),
  ),
  namespace: v.optional(s.dnsLabel, 'default'),
  labels: v.optional(limitedRecord(s.qualifiedName, s.labelValue), {}),
  annotations: v.optional(
    v.pipe(
      limitedRecord(s.qualifiedName, s.string),
      v.check(
        (all) => Object.entries(all).join('').length <= maxAnnotationBytes,
        `must be at most ${maxAnnotationBytes} bytes in all`,
      ),
    ),
    {},
  ),
  /** A UUID; of a static pod, as a kubelet prints it, a hash. */
  uid: v.optional(
    v.pipe(
      s.string,
      v.regex(/^[0-9a-f]([-0-9a-f]{0,61}[0-9a-f])?$/, 'must be a UUID in lower case, or another hexadecimal number'),
    ),
  ),
});

/** Metadata of a template, without its name: the object that has it names its pods. */
const { labels, annotations } = metadataEntries.entries;
export const templateMetadata = v.object({
  labels,
  annotations,
  name: v.optional(s.string),
  namespace: v.optional(s.string),
});

function isGenerateName(prefix: string): boolean {
  return prefix === '' || v.is(s.dnsSubdomain, `${prefix.slice(0, maxGenerateNameChars)}x`);
}

export const metadata = v.pipe(
  metadataEntries,
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed || dataset.value.name !== undefined || dataset.value.generateName) return;
    addIssue({ message: 'is required', path: [s.fieldPath(dataset.value, 'name')] });
  }),
  v.transform(({ name, generateName, ...rest }) => ({ ...rest, name: name ?? generated(generateName ?? '') })),
);

function limitedRecord<K extends v.BaseSchema<string, string, v.BaseIssue<unknown>>, V extends v.GenericSchema>(
  key: K,
  value: V,
) {
  return v.pipe(
    v.record(key, value, (issue) => `must be a mapping, got ${s.describe(issue.input)}`),
    v.check((all) => Object.keys(all).length <= maxMetadataItems, `must have at most ${maxMetadataItems} entries`),
  );
}

export const podSchema = v.object({
  apiVersion: v.literal('v1', 'must be v1'),
  kind: v.literal('Pod'),
  metadata,
  spec: podSpec,
});
export type Pod = v.InferOutput<typeof podSchema>;

/** Base64 of any bytes, as Secrets and binaryData carry it. */
const base64 = v.pipe(
  s.string,
  v.transform((value) => value.replaceAll(/\s/g, '')),
  v.check((value) => /^[A-Za-z0-9+/]*={0,2}$/.test(value) && value.length % 4 === 0, 'must be base64'),
);

function dataSize<T extends object>() {
  return v.check<T, string>((object) => {
    const { data, binaryData, stringData } = object as Readonly<Record<string, unknown>>; // SAFE: only measured
    return charsIn(data) + charsIn(binaryData) + charsIn(stringData) <= maxDataBytes;
  }, `must hold at most ${maxDataBytes} bytes of data`);
}

function charsIn(data: unknown): number {
  if (typeof data !== 'object' || data === null) return 0;
  return Object.values(data).reduce((sum: number, value) => sum + Buffer.byteLength(String(value)), 0);
}

/** What a claim may ask for: the machine of one pod at a time has a volume's disk. */
const accessMode = v.pipe(
  s.picklist(['ReadWriteOnce', 'ReadWriteOncePod', 'ReadWriteMany', 'ReadOnlyMany']),
  s.supported(
    (mode) => mode === 'ReadWriteOnce' || mode === 'ReadWriteOncePod',
    (issue) => `must be ReadWriteOnce or ReadWriteOncePod, got ${s.describe(issue.input)}: one pod at a time has it`,
  ),
);

export const claimSchema = v.object({
  apiVersion: v.literal('v1', 'must be v1'),
  kind: v.literal('PersistentVolumeClaim'),
  metadata,
  spec: v.object({
    accessModes: v.pipe(s.list(accessMode, 4), v.minLength(1, 'must have at least one access mode')),
    resources: v.object({ requests: v.object({ storage: s.quantity }) }),
    volumeMode: v.optional(
      v.pipe(
        s.picklist(['Filesystem', 'Block']),
        s.supported(
          (mode) => mode === 'Filesystem',
          () => 'must be Filesystem: use a hostPath volume with volumeDevices for a device',
        ),
      ),
    ),
  }),
});
export type Claim = v.InferOutput<typeof claimSchema>;

const data = <V extends v.GenericSchema>(value: V) => v.optional(limitedRecord(s.configKey, value), {});

export const configMapSchema = v.pipe(
  v.object({
    apiVersion: v.literal('v1', 'must be v1'),
    kind: v.literal('ConfigMap'),
    metadata,
    data: data(s.string),
    binaryData: data(base64),
    immutable: v.optional(s.boolean),
  }),
  dataSize(),
);
export type ConfigMap = v.InferOutput<typeof configMapSchema>;

export const secretSchema = v.pipe(
  v.object({
    apiVersion: v.literal('v1', 'must be v1'),
    kind: v.literal('Secret'),
    metadata,
    type: v.optional(s.string, 'Opaque'),
    data: data(base64),
    stringData: data(s.string),
    immutable: v.optional(s.boolean),
  }),
  dataSize(),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const { type, data: encoded, stringData } = dataset.value;
    const key = { 'kubernetes.io/dockerconfigjson': '.dockerconfigjson', 'kubernetes.io/dockercfg': '.dockercfg' }[
      type
    ];
    if (key === undefined) return;
    const text = stringData[key] ?? Buffer.from(encoded[key] ?? '', 'base64').toString('utf8');
    if (dockerLogins(text, key === '.dockerconfigjson') !== undefined) return;
    const message = `must have ${key}, JSON with registries and their credentials, in a Secret of the type ${type}`;
    addIssue({ message, path: [s.fieldPath(dataset.value, 'data')] });
  }),
);
export type Secret = v.InferOutput<typeof secretSchema>;
