import * as v from 'valibot';
import { podSpec } from './pod-spec.ts';
import * as s from './scalars.ts';

/** Whole objects of a manifest, named as Kubernetes names them. */
const maxMetadataItems = 1000;
/** Kubernetes' limit on a ConfigMap's or Secret's data, in bytes. */
export const maxDataBytes = 1024 * 1024;
const maxAnnotationBytes = 256 * 1024;

const metadata = (name: typeof s.dnsSubdomain) =>
  v.object({
    name,
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
    uid: v.optional(
      v.pipe(s.string, v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'must be a UUID in lower case')),
    ),
  });

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
  metadata: metadata(s.dnsSubdomain),
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

const data = <V extends v.GenericSchema>(value: V) => v.optional(limitedRecord(s.configKey, value), {});

export const configMapSchema = v.pipe(
  v.object({
    apiVersion: v.literal('v1', 'must be v1'),
    kind: v.literal('ConfigMap'),
    metadata: metadata(s.dnsSubdomain),
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
    metadata: metadata(s.dnsSubdomain),
    type: v.optional(s.string, 'Opaque'),
    data: data(base64),
    stringData: data(s.string),
    immutable: v.optional(s.boolean),
  }),
  dataSize(),
);
export type Secret = v.InferOutput<typeof secretSchema>;
