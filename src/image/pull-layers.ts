import { PassThrough } from 'node:stream';
import { traced } from '#host/log/tracing.ts';
import { createGate } from '#host/gate.ts';
import { layerFault } from './import/layer-fault.ts';
import { type FlattenedImage, flattenArriving, type StoredLayers } from './flatten.ts';
import { blobName } from './names.ts';
import type { Reader } from './source/layout.ts';
import { type RemoteImage, type ResolvedImage, resolveConfig } from './source/resolve-image.ts';
import { blobsDirectory, type DeclaredSize, type Skopeo } from './source/skopeo.ts';

export interface PullLayersOptions {
  readonly reader: Reader;
  /** Directory for the work; the file is made in it. */
  readonly directory: string;
  /** Full name of the image's repository. */
  readonly repository: string;
  /** Layers that need not be fetched, by the digests of their blobs. */
  readonly stored: StoredLayers;
  readonly onBytes: (bytes: number) => void;
  /** Called when all layers are there. */
  readonly onCopied: () => void;
}

export interface PulledImage {
  readonly image: RemoteImage;
  readonly flattened: FlattenedImage;
}

/**
 * Images that are flattened while they arrive. A slow registry occupies one of the importer's places for that time, and
 * leaves the other to images that are there.
 */
const early = createGate(1);

/**
 * Copies the layers of a resolved image that are not stored, and flattens each as soon as it and those below it are there. The first failure
 * ends both. Errors: those of `Skopeo`, `resolveConfig` and `flatten`.
 */
export async function pullLayers(
  what: string,
  resolved: ResolvedImage & { readonly declared: DeclaredSize },
  skopeo: Skopeo,
  { reader, directory, repository, stored, onBytes, onCopied }: PullLayersOptions,
  signal: AbortSignal,
): Promise<PulledImage> {
  await skopeo.makeLayout(resolved.manifest.layers.filter(({ digest }) => stored.has(digest)));
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const numbers = new PassThrough();
  const copying = traced({ name: 'layers copied' }, async () => {
    const { pinned, declared, manifest } = resolved;
    const waiting = Map.groupBy(manifest.layers.keys(), (at) => blobOf(manifest.layers[at]?.digest ?? ''));
    const onBlob = (name: string) => {
      for (const at of waiting.get(name) ?? []) numbers.write(`${at}\n`);
      waiting.delete(name);
    };
    await skopeo.copyToLayout(pinned, declared, { onBytes, onBlob }, stop);
    numbers.end();
    onCopied();
  });
  const making = (async () => {
    const image = await resolveConfig(what, resolved, skopeo, reader, stop);
    using _early = early.inside === 0 ? await early.enter(stop) : undefined;
    if (_early === undefined) await copying;
    const sizes = new Map(resolved.manifest.layers.map(({ digest, size }) => [digest, size]));
    const layers = image.layers.map(({ digest, diffId }, at) => {
      const known = stored.get(digest);
      if (known === undefined) {
        const name = `${blobsDirectory}/${blobOf(digest)}`;
        return { diffId, blob: blobName(repository, digest), size: sizes.get(digest) ?? 0, name };
      }
      if (known.diffId === diffId) return known.files;
      throw layerFault(at)(`digest mismatch: expected ${diffId}, got ${known.diffId}`);
    });
    const arriving = { directory: skopeo.layout, numbers };
    const flattened = await traced({ name: 'layers flattened' }, () =>
      flattenArriving(layers, arriving, { directory, limits: reader.limits, signal: stop }),
    );
    return { image, flattened };
  })();
  try {
    const [made] = await Promise.all([making, copying]);
    return made;
  } finally {
    failed.abort();
    await Promise.allSettled([making, copying]);
  }
}

const blobOf = (digest: string) => digest.replace('sha256:', '');
