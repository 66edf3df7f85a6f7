import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';

/** Shapes of the OCI image specification and of Docker's schema 2, as far as they are used; all from outside. */
const digest = v.pipe(v.string(), v.regex(/^sha256:[0-9a-f]{64}$/, 'no sha256 digest'));
const descriptor = v.object({
  mediaType: v.optional(v.pipe(v.string(), v.maxLength(256)), ''),
  digest,
  size: v.pipe(v.number(), v.integer(), v.minValue(0)),
  platform: v.optional(v.object({ os: v.string(), architecture: v.string(), variant: v.optional(v.string()) })),
  annotations: v.optional(v.nullable(v.record(v.string(), v.string()))),
});
export type Descriptor = v.InferOutput<typeof descriptor>;

/** What can be done about an image that is broken in itself. */
export const brokenImageFix = 'Fetch it again; if that does not help, the image has to be built anew.';

/** Longest manifest, index or config; what containerd and registries hold to. */
export const maxDocumentBytes = 4 * 1024 * 1024;

/** Layers of one image; overlayfs itself stops at 500. */
const maxLayers = 500;

export const indexSchema = v.object({ manifests: v.pipe(v.array(descriptor), v.maxLength(1000)) });
export const manifestSchema = v.object({
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
      }),
    ),
  ),
});
export type OciConfig = v.InferOutput<typeof configSchema>;

/** Parses what a registry or an archive said. Errors: `corrupt`, naming the field. */
export function parseOci<S extends v.GenericSchema>(what: string, bytes: string, schema: S): v.InferOutput<S> {
  let json: unknown;
  try {
    json = JSON.parse(bytes);
  } catch {
    // The parser's own message would quote what it read.
    throw new PodvmError('corrupt', `Cannot read ${what}: it is no JSON`, { fix: brokenImageFix });
  }
  const result = v.safeParse(schema, json);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new PodvmError('corrupt', `Cannot read ${what}: ${v.getDotPath(issue) ?? 'it'}: ${issue.message}`, {
    fix: brokenImageFix,
  });
}

export function isIndex(bytes: string): boolean {
  try {
    return Array.isArray((JSON.parse(bytes) as { manifests?: unknown } | null)?.manifests);
  } catch {
    return false; // parseOci says what is wrong with it
  }
}

/** The image of an index that runs here. Errors: `unsupported`, naming what there is. */
export function chooseManifest(what: string, manifests: readonly Descriptor[], architecture: string): Descriptor {
  const fit = manifests.find((m) => m.platform?.os === 'linux' && m.platform.architecture === architecture);
  if (fit !== undefined) return fit;
  const offered = manifests.map((m) => `${m.platform?.os ?? '?'}/${m.platform?.architecture ?? '?'}`).join(', ');
  throw new PodvmError(
    'unsupported',
    `Cannot use ${what}: it has no linux/${architecture} image, only ${offered || 'none'}`,
    { fix: 'Use an image built for this machine.' },
  );
}

/** Node's word for the processor, as OCI says it. */
export function ociArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

export function digestOf(bytes: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export type Compression = 'none' | 'gzip' | 'zstd';

/** Errors: `unsupported`. */
export function compressionOf(layer: Descriptor): Compression {
  const type = layer.mediaType;
  if (!/^application\/vnd\.(?:oci|docker)\.image\.(?:layer|rootfs)\./.test(type) || type.includes('encrypted')) {
    throw new PodvmError(
      'unsupported',
      `Cannot use a layer of type ${JSON.stringify(type)}: only tar, gzip and zstd are known`,
      { fix: 'Build the image with such layers.' },
    );
  }
  if (/[.+]gzip$/.test(type)) return 'gzip';
  return /[.+]zstd$/.test(type) ? 'zstd' : 'none';
}
