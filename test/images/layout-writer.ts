import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tarOf, type TarSpec } from '#image/tar/tar-builder.ts';
import { compress, type Compression, sha256 } from './image-tree.ts';

export interface ImageSpec {
  readonly layers: readonly (readonly TarSpec[])[];
  readonly compression?: Compression;
  /** Put over the config that fits. */
  readonly config?: object;
  readonly architecture?: string;
  /** Name in the layout. */
  readonly name?: string;
}

export interface WrittenImage {
  readonly layout: string;
  readonly id: string;
  readonly manifestDigest: string;
  /** Descriptor of the image in an index, without the platform. */
  readonly entry: { readonly mediaType: string; readonly digest: string; readonly size: number };
  readonly layerDigests: readonly string[];
}

const suffix = { none: '', gzip: '+gzip', zstd: '+zstd' } as const;

/** Writes an OCI layout with these images into a new directory. */
export async function writeLayout(layout: string, specs: readonly ImageSpec[]): Promise<readonly WrittenImage[]> {
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const add = async (mediaType: string, bytes: Buffer) => {
    const digest = sha256(bytes);
    await writeFile(join(layout, 'blobs', digest.replace(':', '/')), bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const json = async (mediaType: string, body: object) => await add(mediaType, Buffer.from(JSON.stringify(body)));
  const written: WrittenImage[] = [];
  const manifests: object[] = [];
  for (const spec of specs) {
    const compression = spec.compression ?? 'gzip';
    const tars = spec.layers.map(tarOf);
    const layers = await Promise.all(
      tars.map((tar) =>
        add(`application/vnd.oci.image.layer.v1.tar${suffix[compression]}`, compress(tar, compression)),
      ),
    );
    const config = await json('application/vnd.oci.image.config.v1+json', {
      architecture: spec.architecture ?? 'amd64',
      os: 'linux',
      config: { Cmd: ['sh'] },
      rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
      ...spec.config,
    });
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const manifest = await json(mediaType, { schemaVersion: 2, mediaType, config, layers });
    const annotations = spec.name === undefined ? {} : { 'org.opencontainers.image.ref.name': spec.name };
    const platform = { os: 'linux', architecture: spec.architecture ?? 'amd64' };
    manifests.push({ ...manifest, annotations, platform });
    const layerDigests = layers.map(({ digest }) => digest);
    written.push({ layout, id: config.digest, manifestDigest: manifest.digest, entry: manifest, layerDigests });
  }
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  return written;
}

/** Puts the two manifests of a layout into one index, as images for several processors are pushed. */
export async function makeIndex(layout: string): Promise<void> {
  const inner = await readFile(join(layout, 'index.json'));
  const hex = sha256(inner).slice('sha256:'.length);
  await writeFile(join(layout, 'blobs/sha256', hex), inner);
  const descriptor = {
    mediaType: 'application/vnd.oci.image.index.v1+json',
    digest: `sha256:${hex}`,
    size: inner.length,
  };
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));
}
