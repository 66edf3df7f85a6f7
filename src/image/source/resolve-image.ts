import { PodvmError } from '#base/errors.ts';
import { chooseImage } from './choose-image.ts';
import { type ImageSource, imageSource, type Reader, readOwnLayout } from './layout.ts';
import type { ImageLimits } from '../limits.ts';
import { namesOf, type Names } from '../names.ts';
import {
  brokenImageFix,
  checkDigest,
  configSchema,
  digestOf,
  type Manifest,
  ociConfigType,
  ociManifestType,
  parseOci,
} from '../oci.ts';
import { formatReference, nameOf, type Reference } from '#base/image-reference.ts';
import type { DeclaredSize, Skopeo } from './skopeo.ts';

/** Meaning of a reference in its registry at present. */
export interface ResolvedImage {
  readonly manifest: Manifest;
  /** The full name with the digest of the manifest. */
  readonly pinned: string;
  readonly names: Names;
  /** The processor level that it needs; see `Processor`. */
  readonly level: number;
}

/**
 * Asks a registry for the image that fits. Errors: those of `chooseImage` and `Skopeo`; `corrupt` on a digest mismatch.
 */
export async function resolveImage(
  reference: Reference,
  skopeo: Pick<Skopeo, 'inspectRaw' | 'inspectConfig'>,
  reader: Reader,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  const what = formatReference(reference);
  const text = await skopeo.inspectRaw(what, signal);
  if (reference.digest !== undefined && digestOf(text) !== reference.digest) {
    throw new PodvmError(
      'corrupt',
      `Cannot pull ${what}: digest mismatch: expected ${reference.digest}, got ${digestOf(text)}`,
      { fix: brokenImageFix },
    );
  }
  const byDigest = (digest: string) => `${nameOf(reference)}@${digest}`;
  const documents = {
    manifest: async (digest: string) => await skopeo.inspectRaw(byDigest(digest), signal),
    config: async (manifest: string) => await skopeo.inspectConfig(byDigest(manifest), signal),
  };
  const { manifest, digests, level } = await chooseImage(text, { what, documents, ...reader });
  const pinned = byDigest(digests.at(-1) ?? digestOf(text));
  return { manifest, pinned, names: namesOf(reference, digests), level };
}

/** Returns the sizes that a manifest declares for its blobs. Errors: `exhausted` when they exceed the limits. */
export function declaredSize(what: string, { config, layers }: Manifest, limits: ImageLimits): DeclaredSize {
  const sizes = [config, ...layers].map(({ size }) => size);
  const allBytes = sizes.reduce((sum, size) => sum + size, 0);
  if (allBytes <= limits.maxImageBytes) return { largestBytes: Math.max(...sizes), allBytes };
  throw new PodvmError(
    'exhausted',
    `Cannot pull ${what}: its layers have more than ${limits.maxImageBytes} bytes, got ${allBytes}`,
    { fix: 'Use a smaller image.' },
  );
}

/**
 * Copies a resolved image into `directory`. Its id is the digest of the registry's config, as in other runtimes; skopeo's
 * output is only used if it has that digest. Errors: `corrupt`, `unsupported`, those of `Skopeo`.
 */
export async function copyImage(
  what: string,
  { manifest, pinned, level, declared }: ResolvedImage & { readonly declared: DeclaredSize },
  skopeo: Skopeo,
  reader: Reader,
  onBytes: (bytes: number) => void,
  signal: AbortSignal,
): Promise<ImageSource> {
  const { config, mediaType } = manifest;
  const { digest: id } = config;
  // skopeo converts anything that is not purely OCI, which changes the digest of the config's copy.
  const isCopiedAsIs = mediaType === ociManifestType && config.mediaType === ociConfigType;
  const original = isCopiedAsIs ? undefined : await skopeo.inspectConfig(pinned, signal);
  const layout = await skopeo.copyToLayout(pinned, declared, onBytes, signal);
  const copy = await readOwnLayout(what, layout, reader);
  if (original !== undefined) {
    const found = parseOci(what, checkDigest(what, original, id), configSchema);
    return imageSource(what, { id, config: found, layers: copy.layers, level }, reader.processor);
  }
  if (copy.id === id) return { ...copy, level: Math.max(level, copy.level) };
  throw new PodvmError(
    'corrupt',
    `Cannot pull ${what}: digest mismatch of its config: expected ${id}, got ${copy.id}`,
    {
      fix: brokenImageFix,
    },
  );
}
