import { PassThrough } from 'node:stream';
import { traced } from '#host/log/tracing.ts';
import { createGate } from '#host/gate.ts';
import { assertRoom } from './import/disk-room.ts';
import { storedLayerFault } from './import/layer-fault.ts';
import { type FlattenedImage, flattenArriving, type StoredLayers } from './flatten.ts';
import { blobName } from './names.ts';
import type { Reader } from './source/layout.ts';
import { declaredSize, type RemoteImage, type ResolvedImage, resolveConfig } from './source/resolve-image.ts';
import { blobsDirectory, type Skopeo } from './source/skopeo.ts';

export interface PullLayersOptions {
  readonly reader: Reader;
  /** Directory for the work; the file is made in it. */
  readonly directory: string;
  /** Full name of the image's repository. */
  readonly repository: string;
  /** Layers that need not be fetched, by the digests of their blobs. */
  readonly stored: StoredLayers;
  /** Called with each step, as a sentence. */
  readonly onProgress: ((message: string) => void) | undefined;
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
 * ends all. Errors: those of `Skopeo`, `resolveConfig` and `flatten`; `StoredLayerFault`.
 */
export async function pullLayers(
  what: string,
  resolved: ResolvedImage,
  skopeo: Skopeo,
  { reader, directory, repository, stored, onProgress }: PullLayersOptions,
  signal: AbortSignal,
): Promise<PulledImage> {
  const { pinned, manifest } = resolved;
  const fetched = manifest.layers.filter(({ digest }) => !stored.has(digest));
  declaredSize(what, manifest, reader.limits);
  const declared = declaredSize(what, { ...manifest, layers: fetched }, reader.limits);
  // Room for the blobs, and for the file made of them, which is at least as large.
  await assertRoom(directory, 2 * declared.allBytes, `pull ${what}`);
  const sum = megabytes(declared.allBytes);
  onProgress?.(`pulling ${what} (${countOf(fetched, manifest.layers)}, ${sum} MB)`);
  const onBytes = (bytes: number) => onProgress?.(`pulling ${what}: ${megabytes(bytes)} of ${sum} MB`);
  await skopeo.makeLayout(manifest.layers.filter(({ digest }) => stored.has(digest)));
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const numbers = new PassThrough();
  const copying = traced({ name: 'layers copied' }, async () => {
    const waiting = Map.groupBy(manifest.layers.keys(), (at) => blobOf(manifest.layers[at]?.digest ?? ''));
    const onBlob = (name: string) => {
      for (const at of waiting.get(name) ?? []) numbers.write(`${at}\n`);
      waiting.delete(name);
    };
    await skopeo.copyToLayout(pinned, declared, { onBytes, onBlob }, stop);
    numbers.end();
    onProgress?.(`flattening ${what}`);
  });
  const described = resolveConfig(what, resolved, skopeo, reader, stop);
  const diffIds = described.then(({ layers }) =>
    layers.map(({ digest, diffId }, at) => {
      const known = stored.get(digest)?.diffId ?? diffId;
      if (known === diffId) return diffId;
      throw storedLayerFault(at)(`digest mismatch: expected ${diffId}, got ${known}`);
    }),
  );
  const making = (async () => {
    using _early = early.inside === 0 ? await early.enter(stop) : undefined;
    if (_early === undefined) await Promise.all([copying, diffIds]);
    const layers = manifest.layers.map(({ digest, size }) => {
      const name = `${blobsDirectory}/${blobOf(digest)}`;
      return stored.get(digest)?.files ?? { name, blob: blobName(repository, digest), size };
    });
    const arriving = { directory: skopeo.layout, numbers };
    return await traced({ name: 'layers flattened' }, () =>
      flattenArriving(layers, diffIds, arriving, { directory, limits: reader.limits, signal: stop }),
    );
  })();
  const all = [making, copying, diffIds] as const;
  try {
    const [flattened] = await Promise.all(all);
    return { image: await described, flattened };
  } finally {
    failed.abort();
    await Promise.allSettled(all);
  }
}

function countOf(fetched: readonly unknown[], all: readonly unknown[]): string {
  const part = fetched.length === all.length ? '' : `${fetched.length} of `;
  return `${part}${all.length} ${all.length === 1 ? 'layer' : 'layers'}`;
}

const megabytes = (bytes: number) => Math.ceil(bytes / 1_000_000);

const blobOf = (digest: string) => digest.replace('sha256:', '');
