import { copyFile, mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { createReadStream, createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { run } from '#host/process/run.ts';
import { digestOf, ociArchitecture } from '../oci.ts';

/** A layer: the content of a directory. */
export interface LayerSource {
  readonly root: string;
  readonly isCompressed: boolean;
}

export interface LayoutSpec {
  /** Name of the image. */
  readonly reference: string;
  /** From the lowest to the topmost. */
  readonly layers: readonly LayerSource[];
  /** Environment, command and the like: `config` of the image's configuration. */
  readonly config: object;
  /** Date of all files, in seconds since 1970. */
  readonly epoch: number;
}

interface WrittenLayer {
  readonly descriptor: { readonly mediaType: string; readonly digest: string; readonly size: number };
  /** Digest of the layer's tar. */
  readonly diffId: string;
}

const timeoutMs = 10 * 60_000;
const manifestType = 'application/vnd.oci.image.manifest.v1+json';

/** Writes an OCI layout of one image to `layout`, which must not exist. The same files give the same bytes. */
export async function writeImageLayout(layout: string, spec: LayoutSpec, signal: AbortSignal): Promise<void> {
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const layers: WrittenLayer[] = [];
  for (const layer of spec.layers) layers.push(await addLayer(layout, layer, spec.epoch, signal));
  const config = await addJson(layout, 'application/vnd.oci.image.config.v1+json', {
    architecture: ociArchitecture(),
    os: 'linux',
    config: spec.config,
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const manifest = await addJson(layout, manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    config,
    layers: layers.map(({ descriptor }) => descriptor),
  });
  const annotations = { 'org.opencontainers.image.ref.name': spec.reference };
  await writeFile(
    join(layout, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}

async function addLayer(
  layout: string,
  { root, isCompressed }: LayerSource,
  epoch: number,
  signal: AbortSignal,
): Promise<WrittenLayer> {
  const [tar, packed] = [join(layout, 'layer.tar'), join(layout, 'layer.tar.gz')];
  const fixed = ['--sort=name', `--mtime=@${epoch}`, '--owner=0', '--group=0', '--numeric-owner', '--format=gnu'];
  await run('tar', ['--create', '--file', tar, ...fixed, '--directory', root, '.'], { signal, timeoutMs });
  const diffId = await digestOfFile(tar, signal);
  let mediaType = 'application/vnd.oci.image.layer.v1.tar';
  let [from, digest] = [tar, diffId];
  if (isCompressed) {
    await pipeline(createReadStream(tar), createGzip({ level: 9 }), createWriteStream(packed), { signal });
    mediaType = `${mediaType}+gzip`;
    [from, digest] = [packed, await digestOfFile(packed, signal)];
  }
  await copyFile(from, blobPath(layout, digest));
  await rm(tar);
  await rm(packed, { force: true });
  return { descriptor: { mediaType, digest, size: (await stat(blobPath(layout, digest))).size }, diffId };
}

async function digestOfFile(path: string, signal: AbortSignal): Promise<string> {
  const { stdout } = await run('sha256sum', [path], { signal, timeoutMs });
  return `sha256:${stdout.slice(0, 64)}`;
}

const blobPath = (layout: string, digest: string) => join(layout, 'blobs', digest.replace(':', '/'));

async function addJson(layout: string, mediaType: string, body: unknown) {
  const text = JSON.stringify(body);
  const digest = digestOf(text);
  await writeFile(blobPath(layout, digest), text);
  return { mediaType, digest, size: Buffer.byteLength(text) };
}
