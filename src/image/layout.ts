import { constants, open } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import type { Layer } from './layer-stream.ts';
import {
  brokenImageFix,
  chooseManifest,
  compressionOf,
  configSchema,
  type Descriptor,
  digestOf,
  indexSchema,
  isIndex,
  manifestSchema,
  maxDocumentBytes,
  type OciConfig,
  ociArchitecture,
  parseOci,
} from './oci.ts';

/** Where the blob of this name lies; undefined when it is not there. Names: `index.json`, `blobs/sha256/<hex>`. */
export type FindFile = (name: string) => string | undefined;

/** An image whose config is checked and whose layers are files; what flatten() takes. */
export interface ImageSource {
  /** Digest of the config. */
  readonly id: string;
  readonly config: OciConfig;
  readonly layers: readonly Layer[];
}

/**
 * The image that a descriptor in an OCI layout means: a manifest, or an index with one for this machine. Every
 * document is checked against its digest; layers are checked when they are read. Errors: `corrupt`, `unsupported`.
 */
export async function readLayoutImage(what: string, find: FindFile, descriptor: Descriptor): Promise<ImageSource> {
  let text = await readBlob(what, find, descriptor.digest);
  if (isIndex(text)) {
    const chosen = chooseManifest(what, parseOci(what, text, indexSchema).manifests, ociArchitecture());
    text = await readBlob(what, find, chosen.digest);
  }
  const manifest = parseOci(what, text, manifestSchema);
  const config = parseOci(what, await readBlob(what, find, manifest.config.digest), configSchema);
  const layers = manifest.layers.map((layer) => ({
    path: blobPath(what, find, layer.digest),
    compression: compressionOf(layer),
  }));
  return imageSource(what, manifest.config.digest, config, layers);
}

/** Errors: `unsupported` for another machine, `corrupt` when there is not one digest for each layer. */
export function imageSource(
  what: string,
  id: string,
  config: OciConfig,
  layers: readonly Omit<Layer, 'diffId'>[],
): ImageSource {
  if (config.os !== 'linux' || config.architecture !== ociArchitecture()) {
    throw new PodvmError(
      'unsupported',
      `Cannot use ${what}: it is for ${config.os}/${config.architecture}, this machine is linux/${ociArchitecture()}`,
      { fix: 'Use an image built for this machine.' },
    );
  }
  const { diff_ids: diffIds } = config.rootfs;
  if (diffIds.length !== layers.length) {
    throw new PodvmError(
      'corrupt',
      `Cannot use ${what}: it has ${layers.length} layers, but its config has ${diffIds.length} digests of them`,
      { fix: brokenImageFix },
    );
  }
  return { id, config, layers: layers.map((layer, at) => ({ ...layer, diffId: diffIds[at] ?? '' })) };
}

/** A file of JSON, which has a limit. Errors: `corrupt`. */
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

async function readBlob(what: string, find: FindFile, digest: string): Promise<string> {
  const text = await readDocument(what, blobPath(what, find, digest));
  const found = digestOf(text);
  if (found === digest) return text;
  throw new PodvmError('corrupt', `Cannot use ${what}: a document has not its digest ${digest}, but ${found}`, {
    fix: brokenImageFix,
  });
}

function blobPath(what: string, find: FindFile, digest: string): string {
  const path = find(`blobs/${digest.replace(':', '/')}`);
  if (path === undefined)
    throw new PodvmError('corrupt', `Cannot use ${what}: its blob ${digest} is missing`, { fix: brokenImageFix });
  return path;
}
