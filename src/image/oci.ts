import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { volumesSchema } from './image-volumes.ts';

/** Schemas of the OCI image specification and of Docker's schema 2, for the fields used; all input is untrusted. */
const digest = v.pipe(v.string(), v.regex(/^sha256:[0-9a-f]{64}$/, 'not a sha256 digest'));
/** The platform of an image, from an entry of an index or a config; a document without one fits no machine. */
export const platformSchema = v.object({
  os: v.optional(v.string(), ''),
  architecture: v.optional(v.string(), ''),
  variant: v.optional(v.string()),
});
export type OciPlatform = v.InferOutput<typeof platformSchema>;
const descriptor = v.object({
  mediaType: v.optional(v.pipe(v.string(), v.maxLength(256)), ''),
  digest,
  size: v.pipe(v.number(), v.integer(), v.minValue(0)),
  platform: v.optional(platformSchema),
  annotations: v.optional(v.nullable(v.record(v.string(), v.string()))),
  artifactType: v.optional(v.string()),
});
export type Descriptor = v.InferOutput<typeof descriptor>;

/** Fix for an image that is itself broken. */
export const brokenImageFix = 'Fetch it again; if that does not help, build and push the image again.';

/** Largest manifest, index or config, as in containerd and registries. */
export const maxDocumentBytes = 4 * 1024 * 1024;

/** Maximum layers of one image; overlayfs itself stops at 500. */
const maxLayers = 500;

export const indexSchema = v.object({ manifests: v.pipe(v.array(descriptor), v.maxLength(1000)) });
export const manifestSchema = v.object({
  mediaType: v.optional(v.pipe(v.string(), v.maxLength(256))),
  config: descriptor,
  layers: v.pipe(v.array(descriptor), v.maxLength(maxLayers)),
});
export type Manifest = v.InferOutput<typeof manifestSchema>;

const text = v.pipe(v.string(), v.maxLength(131_072));
const words = v.optional(v.nullable(v.pipe(v.array(text), v.maxLength(10_000))));
const word = v.optional(v.nullable(text));
export const configSchema = v.object({
  os: v.string(),
  architecture: v.string(),
  variant: v.optional(v.string()),
  rootfs: v.object({ diff_ids: v.pipe(v.array(digest), v.maxLength(maxLayers)) }),
  config: v.optional(
    v.nullable(
      v.object({
        Entrypoint: words,
        Cmd: words,
        Env: words,
        WorkingDir: word,
        User: word,
        StopSignal: word,
        Volumes: v.optional(v.nullable(volumesSchema)),
      }),
    ),
  ),
});
export type OciConfig = v.InferOutput<typeof configSchema>;

/** Parses a document of a registry or an archive. Errors: `corrupt`, naming the field. */
export function parseOci<S extends v.GenericSchema>(what: string, bytes: string, schema: S): v.InferOutput<S> {
  let json: unknown;
  try {
    json = JSON.parse(bytes);
  } catch {
    // The parser's own message would quote the untrusted text.
    throw new PodvmError('corrupt', `Cannot read ${what}: it is not JSON`, { fix: brokenImageFix });
  }
  const result = v.safeParse(schema, json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new PodvmError('corrupt', `Cannot read ${what}: ${v.getDotPath(issue) ?? 'it'}: ${issue.message}`, {
    fix: brokenImageFix,
  });
}

/** A document of a registry or a layout. */
export type ImageDocument =
  | { readonly kind: 'index'; readonly entries: readonly Descriptor[] }
  | { readonly kind: 'manifest'; readonly manifest: Manifest }
  | { readonly kind: 'other' };

/**
 * Distinguishes an index and a manifest by their fields, since the media type can be wrong. Refuses a document that is
 * both, which would mean different images to different readers (CVE-2021-41190). Errors: `corrupt`.
 */
export function parseDocument(what: string, bytes: string): ImageDocument {
  const has = parseOci(what, bytes, documentSchema);
  if (has.manifests !== undefined && (has.config !== undefined || has.layers !== undefined)) {
    throw new PodvmError('corrupt', `Cannot use ${what}: a document is both an index and a manifest`, {
      fix: brokenImageFix,
    });
  }
  if (has.manifests !== undefined) return { kind: 'index', entries: parseOci(what, bytes, indexSchema).manifests };
  if (has.config === undefined || has.layers === undefined) return { kind: 'other' };
  return { kind: 'manifest', manifest: parseOci(what, bytes, manifestSchema) };
}

const ociConfigType = 'application/vnd.oci.image.config.v1+json';

/** Whether it is the config of an image and not of an artifact. Some old tools wrote no type, or the last of these. */
export function isImageConfig({ mediaType }: Descriptor): boolean {
  return ['', ociConfigType, 'application/vnd.docker.container.image.v1+json', 'application/octet-stream'].includes(
    mediaType,
  );
}

/** Whether an entry of an index may be an image: the specification says to ignore unknown types. */
export function mayBeImage({ mediaType, artifactType, annotations, platform }: Descriptor): boolean {
  // BuildKit's attestations describe another entry, which this annotation names.
  const isAttestation =
    annotations?.['vnd.docker.reference.type'] !== undefined ||
    (platform?.os === 'unknown' && platform.architecture === 'unknown');
  return !isAttestation && !artifactType && (mediaType === '' || documentTypes.test(mediaType));
}

const documentTypes =
  /^application\/vnd\.(?:oci\.image\.(?:manifest|index)\.v1|docker\.distribution\.manifest(?:\.list)?\.v2)\+json$/;
const documentSchema = v.object({
  manifests: v.optional(v.unknown()),
  config: v.optional(v.unknown()),
  layers: v.optional(v.unknown()),
});

/** Returns the processor's name in OCI's terms. */
export function ociArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

export function digestOf(bytes: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Returns the text if it has this digest. Errors: `corrupt`. */
export function checkDigest(what: string, text: string, digest: string): string {
  const found = digestOf(text);
  if (found === digest) return text;
  throw new PodvmError('corrupt', `Cannot use ${what}: digest mismatch: expected ${digest}, got ${found}`, {
    fix: brokenImageFix,
  });
}

/**
 * Checks that a descriptor is of a layer. Its compression is recognised by its bytes instead. Errors: `unsupported`.
 */
export function checkLayerType({ mediaType: type }: Descriptor): void {
  if (!/^application\/vnd\.(?:oci|docker)\.image\.(?:layer|rootfs)\./.test(type) || type.includes('encrypted')) {
    throw new PodvmError(
      'unsupported',
      `Cannot use a layer of type ${JSON.stringify(type)}: expected tar, gzip or zstd`,
      { fix: 'Build the image with layers of these types, unencrypted.' },
    );
  }
}
