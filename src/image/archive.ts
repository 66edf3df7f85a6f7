import { constants, createReadStream, createWriteStream } from 'node:fs';
import { access, open, stat } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { addAbortSignal } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { type FindFile, imageSource, type ImageSource, readDocument, readLayoutImage } from './layout.ts';
import type { ImageLimits } from './limits.ts';
import { brokenImageFix, type Compression, configSchema, digestOf, indexSchema, parseOci } from './oci.ts';
import { readTar } from './tar-reader.ts';

/** One image of an archive, with the names it brings. */
export interface ArchivedImage {
  readonly names: readonly string[];
  readonly source: ImageSource;
}

export interface ArchiveOptions {
  /** Empty directory; an archive's members are put there, under names of our own. */
  readonly work: string;
  readonly limits: ImageLimits;
  readonly signal: AbortSignal;
}

const archiveFix = 'Give the path of a file that `docker save` wrote, or of an OCI layout.';

const member = v.pipe(v.string(), v.minLength(1), v.maxLength(4096));
const dockerSchema = v.pipe(
  v.array(
    v.object({
      Config: member,
      RepoTags: v.optional(v.nullable(v.pipe(v.array(v.string()), v.maxLength(1000)))),
      Layers: v.pipe(v.array(member), v.maxLength(500)),
    }),
  ),
  v.maxLength(1000),
);

/**
 * The images in a docker-archive, an OCI archive or a directory with an OCI layout. Errors: `notFound`, `invalid`
 * (none of the three), `corrupt`, `unsupported`, `exhausted`, `cancelled`.
 */
export async function readArchive(path: string, options: ArchiveOptions): Promise<readonly ArchivedImage[]> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new PodvmError('notFound', `Cannot load ${path}: there is no such file or directory`, {
      cause,
      fix: archiveFix,
    });
  });
  const find = found.isDirectory() ? await filesOfDirectory(path) : await filesOfTar(path, options);
  const index = find('index.json');
  const manifest = find('manifest.json');
  // Newer `docker save` writes both: its index.json knows no names that its manifest.json lacks.
  if (manifest !== undefined) return await dockerImages(path, find, await readDocument(path, manifest));
  if (index !== undefined) return await layoutImages(path, find, await readDocument(path, index));
  throw noArchive(path);
}

async function layoutImages(path: string, find: FindFile, index: string): Promise<readonly ArchivedImage[]> {
  const { manifests } = parseOci(`${path}: index.json`, index, indexSchema);
  const images: ArchivedImage[] = [];
  for (const descriptor of manifests) {
    const { annotations } = descriptor;
    const name = annotations?.['io.containerd.image.name'] ?? annotations?.['org.opencontainers.image.ref.name'];
    images.push({
      names: name === undefined ? [] : [name],
      source: await readLayoutImage(path, find, descriptor),
    });
  }
  return images;
}

async function dockerImages(path: string, find: FindFile, manifest: string): Promise<readonly ArchivedImage[]> {
  const there = (name: string) => {
    const file = find(name);
    if (file !== undefined) return file;
    throw new PodvmError('corrupt', `Cannot load ${path}: it has no ${printable(name)}, which its manifest names`, {
      fix: brokenImageFix,
    });
  };
  const images: ArchivedImage[] = [];
  for (const { Config, RepoTags, Layers } of parseOci(`${path}: manifest.json`, manifest, dockerSchema)) {
    const text = await readDocument(path, there(Config));
    const layers = await Promise.all(
      Layers.map(async (name) => ({ path: there(name), compression: await compressionOfFile(there(name)) })),
    );
    images.push({
      names: RepoTags ?? [],
      source: imageSource(path, digestOf(text), parseOci(path, text, configSchema), layers),
    });
  }
  return images;
}

/** A docker-archive does not say how its layers are compressed; most are not. */
async function compressionOfFile(path: string): Promise<Compression> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    if (buffer.readUInt16BE(0) === 0x1f8b) return 'gzip';
    return buffer.readUInt32BE(0) === 0x28b52ffd ? 'zstd' : 'none';
  } finally {
    await file.close();
  }
}

async function filesOfDirectory(path: string): Promise<FindFile> {
  await access(join(path, 'index.json')).catch((cause: unknown) => {
    throw noArchive(path, cause);
  });
  return (name) => (name === 'manifest.json' ? undefined : join(path, name));
}

/** Every file of the tar as a numbered file of ours, so that no name in it means anything here. */
async function filesOfTar(path: string, { work, limits, signal }: ArchiveOptions): Promise<FindFile> {
  const files = new Map<string, string>();
  const links = new Map<string, string>();
  const bytes = addAbortSignal(signal, createReadStream(path));
  const fault = (reason: string, cause?: unknown) =>
    new PodvmError('invalid', `Cannot load ${path}: it is no docker-archive, OCI archive or OCI layout: ${reason}`, {
      fix: archiveFix,
      ...(cause === undefined ? {} : { cause }),
    });
  let left = limits.maxImageBytes;
  for await (const entry of readTar(bytes, limits, fault)) {
    const name = posix.normalize(`/${entry.name}`).slice(1);
    if (files.size + links.size >= limits.maxArchiveMembers) {
      throw new PodvmError('exhausted', `Cannot load ${path}: it has more than ${limits.maxArchiveMembers} members`, {
        fix: 'Save the images one by one.',
      });
    }
    if (entry.type === 'symlink') links.set(name, posix.join('/', posix.dirname(name), entry.target).slice(1));
    if (entry.type === 'link') links.set(name, posix.normalize(`/${entry.target}`).slice(1));
    if (entry.type !== 'file') continue;
    left -= entry.size;
    if (left < 0) {
      throw new PodvmError('exhausted', `Cannot load ${path}: it has more than ${limits.maxImageBytes} bytes`, {
        fix: 'Save the images one by one.',
      });
    }
    const file = join(work, `member-${files.size}`);
    await pipeline(entry.content(), createWriteStream(file, { flags: 'wx', mode: 0o600 }), { signal });
    files.set(name, file);
  }
  // `docker save` of old puts a link where two images share a layer.
  return (name) => {
    const plain = posix.normalize(`/${name}`).slice(1);
    return files.get(plain) ?? files.get(links.get(plain) ?? '');
  };
}

function noArchive(path: string, cause?: unknown): PodvmError {
  return new PodvmError('invalid', `Cannot load ${path}: it is no docker-archive, OCI archive or OCI layout`, {
    cause,
    fix: archiveFix,
  });
}
