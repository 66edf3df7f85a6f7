import { constants, open } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { chooseAmong, chooseImage, type Documents } from './choose-image.ts';
import type { ImageLimits } from '../limits.ts';
import {
  brokenImageFix,
  checkDigest,
  checkLayerType,
  configSchema,
  type Descriptor,
  indexSchema,
  maxDocumentBytes,
  type OciConfig,
  parseOci,
} from '../oci.ts';
import { describePlatform, describeProcessor, levelOf, type Processor } from './platform.ts';

/**
 * Returns the path of the blob of this name; undefined when it is missing. Names: `index.json`, `blobs/sha256/<hex>`.
 */
export type FindFile = (name: string) => string | undefined;

export interface Layer {
  /** Absolute path of the blob. */
  readonly path: string;
  /** Digest of the uncompressed tar, from the image's config. */
  readonly diffId: string;
}

/** An image with a checked config. */
export interface ImageDescription {
  /** Digest of the config. */
  readonly id: string;
  readonly config: OciConfig;
  /** The processor level that it needs; see `Processor`. */
  readonly level: number;
}

/** An image with layers as files; the input of flatten(). */
export interface ImageSource extends ImageDescription {
  readonly layers: readonly Layer[];
}

/** Settings for reading an image. */
export interface Reader {
  readonly processor: Processor;
  readonly limits: ImageLimits;
}

/**
 * Reads the image that descriptors in an OCI layout stand for together: several are the same image for several
 * processors. Every document is checked against its digest; layers are checked when they are read. Errors: `corrupt`,
 * `unsupported`, `exhausted`.
 */
export async function readLayoutImage(
  what: string,
  find: FindFile,
  descriptors: readonly Descriptor[],
  reader: Reader,
): Promise<ImageSource> {
  const read = async (digest: string) => await readDocument(what, blobPath(what, find, digest));
  const documents: Documents = { manifest: read, config: async (_manifest, digest) => await read(digest) };
  const request = { what, documents, ...reader };
  const [first, ...others] = descriptors;
  const isAlone = first !== undefined && first.platform === undefined && others.length === 0;
  const { manifest, level } = isAlone
    ? await chooseImage(checkDigest(what, await read(first.digest), first.digest), request)
    : await chooseAmong(descriptors, request);
  const { digest } = manifest.config;
  const config = parseOci(what, checkDigest(what, await read(digest), digest), configSchema);
  const layers = manifest.layers.map((layer) => {
    checkLayerType(layer);
    return { path: blobPath(what, find, layer.digest) };
  });
  return withDiffIds(what, { id: digest, config, layers, level }, reader.processor);
}

/** Reads the one image of a layout that podvm or skopeo made. Errors: those of `readLayoutImage`. */
export async function readOwnLayout(what: string, layout: string, reader: Reader): Promise<ImageSource> {
  const { manifests } = parseOci(what, await readDocument(what, join(layout, 'index.json')), indexSchema);
  return await readLayoutImage(what, (name) => join(layout, name), manifests, reader);
}

/**
 * Gives layers the digests in the config. Errors: `unsupported` for another machine, `corrupt` when they differ in number.
 */
export function withDiffIds<Blob extends object>(
  what: string,
  found: ImageDescription & { readonly layers: readonly Blob[] },
  processor: Processor,
): ImageDescription & { readonly layers: readonly (Blob & Pick<Layer, 'diffId'>)[] } {
  const { config, layers } = found;
  const level = levelOf(config, processor);
  if (level === undefined) {
    const platform = printable(describePlatform(config));
    throw new PodvmError(
      'unsupported',
      `Cannot use ${what}: it is for ${platform}, this machine is ${describeProcessor(processor)}`,
      { fix: 'Use an image built for this machine.' },
    );
  }
  const { diff_ids: diffIds } = config.rootfs;
  if (diffIds.length !== layers.length) {
    throw new PodvmError(
      'corrupt',
      `Cannot use ${what}: it has ${layers.length} layers, but its config has ${diffIds.length} layer digests`,
      { fix: brokenImageFix },
    );
  }
  return {
    ...found,
    layers: layers.map((layer, at) => ({ ...layer, diffId: diffIds[at] ?? '' })),
    level: Math.max(level, found.level),
  };
}

/** Reads a JSON file of limited size. Errors: `corrupt`. */
export async function readDocument(what: string, path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (cause: unknown) => {
      throw new PodvmError('corrupt', `Cannot read ${what}: a part of it cannot be opened`, {
        cause,
        fix: brokenImageFix,
      });
    },
  );
  try {
    const stats = await file.stat();
    if (!stats.isFile() || stats.size > maxDocumentBytes) {
      throw new PodvmError('corrupt', `Cannot read ${what}: a document has more than ${maxDocumentBytes} bytes`, {
        fix: brokenImageFix,
      });
    }
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

function blobPath(what: string, find: FindFile, digest: string): string {
  const path = find(`blobs/${digest.replace(':', '/')}`);
  if (path === undefined)
    throw new PodvmError('corrupt', `Cannot use ${what}: its blob ${digest} is missing`, { fix: brokenImageFix });
  return path;
}
