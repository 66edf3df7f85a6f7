import { PodvmError } from '#base/errors.ts';
import { chooseImage } from './choose-image.ts';
import { type ImageDescription, type Reader, withDiffIds } from './layout.ts';
import type { ImageLimits } from '../limits.ts';
import { namesOf, type Names } from '../names.ts';
import {
  brokenImageFix,
  checkDigest,
  checkLayerType,
  configSchema,
  digestOf,
  type Manifest,
  parseOci,
} from '../oci.ts';
import type { KnownDocuments } from './known-documents.ts';
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
 * Asks a registry for the image that fits: always what the reference means, and those of the other documents that are not
 * known. Errors: those of `chooseImage` and `Skopeo`; `corrupt` on a digest mismatch.
 */
export async function resolveImage(
  reference: Reference,
  skopeo: Pick<Skopeo, 'inspectRaw' | 'inspectConfig'>,
  reader: Reader & { readonly known: KnownDocuments },
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
  const document = async (digest: string, ask: () => Promise<string>) => {
    const name = byDigest(digest); // with the repository, whose readers need not be those of another
    const known = reader.known.get(name);
    if (known !== undefined) return known;
    const said = await ask();
    if (digestOf(said) === digest) reader.known.add(name, said);
    return said;
  };
  const documents = {
    manifest: async (digest: string) =>
      await document(digest, async () => await skopeo.inspectRaw(byDigest(digest), signal)),
    config: async (manifest: string, digest: string) =>
      await document(digest, async () => await skopeo.inspectConfig(byDigest(manifest), signal)),
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

/** An image in a registry, with the digests of its layers' blobs. */
export interface RemoteImage extends ImageDescription {
  readonly layers: readonly { readonly digest: string; readonly diffId: string }[];
}

/**
 * Asks a registry for the config of a resolved image and checks it. The id is its digest, as in other runtimes. Errors:
 * `corrupt`, `unsupported`, those of `Skopeo`.
 */
export async function resolveConfig(
  what: string,
  { manifest, pinned, level }: ResolvedImage,
  skopeo: Pick<Skopeo, 'inspectConfig'>,
  { processor }: Reader,
  signal: AbortSignal,
): Promise<RemoteImage> {
  const { digest: id } = manifest.config;
  const text = checkDigest(what, await skopeo.inspectConfig(pinned, signal), id);
  const layers = manifest.layers.map((layer) => {
    checkLayerType(layer);
    return { digest: layer.digest };
  });
  return withDiffIds(what, { id, config: parseOci(what, text, configSchema), layers, level }, processor);
}
