import { access, open, stat } from 'node:fs/promises';
import { join, posix } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { type ArchivedImage, groupByName, mergeImages, type NamedSource } from './archive-names.ts';
import { runImport } from '../import/importer.ts';
import { archiveFix } from '../import/unpack-archive.ts';
import { type FindFile, withDiffIds, type ImageSource, readDocument, type Reader, readLayoutImage } from './layout.ts';
import {
  brokenImageFix,
  configSchema,
  digestOf,
  indexSchema,
  mayBeImage,
  type OciConfig,
  type OciPlatform,
  parseOci,
} from '../oci.ts';
import { bestFirst } from './platform.ts';

export interface ArchiveOptions extends Reader {
  /** Empty directory for an archive's members, under numbered names. */
  readonly work: string;
  readonly signal: AbortSignal;
}

/** Annotations that name an entry of a layout: containerd's holds a whole name, OCI's mostly a tag. */
const containerdName = 'io.containerd.image.name';
const refName = 'org.opencontainers.image.ref.name';

const maxPathChars = 1000;

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
 * Returns the images in a docker-archive, an OCI archive or a directory with an OCI layout. Errors: `notFound`,
 * `invalid` (none of the three), `corrupt`, `unsupported`, `exhausted`, `cancelled`.
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
  // Newer `docker save` writes both; all names of its index.json are in its manifest.json.
  if (manifest !== undefined) return await dockerImages(path, find, await readDocument(path, manifest), options);
  if (index !== undefined) return await layoutImages(path, find, await readDocument(path, index), options);
  throw noArchive(path);
}

/** Entries of the same name are one image for several processors. */
async function layoutImages(
  path: string,
  find: FindFile,
  index: string,
  reader: Reader,
): Promise<readonly ArchivedImage[]> {
  const { manifests } = parseOci(`${path}: index.json`, index, indexSchema);
  const entries = manifests.filter(mayBeImage).map((entry) => ({
    names: [entry.annotations?.[containerdName] ?? entry.annotations?.[refName]].filter((name) => name !== undefined),
    platform: entry.platform,
    entry,
  }));
  const images: NamedSource[] = [];
  for (const { name, members } of groupByName(entries)) {
    const what = name === undefined ? path : `${path}: ${printable(name)}`;
    const descriptors = members.map(({ entry }) => entry);
    images.push({ name, source: await readLayoutImage(what, find, descriptors, reader) });
  }
  return mergeImages(images);
}

interface DockerEntry {
  readonly names: readonly string[];
  readonly platform: OciPlatform;
  readonly id: string;
  readonly config: OciConfig;
  /** Names of its layers. */
  readonly files: readonly string[];
}

async function dockerImages(
  path: string,
  find: FindFile,
  manifest: string,
  { processor }: Reader,
): Promise<readonly ArchivedImage[]> {
  const there = (name: string) => {
    const file = find(name);
    if (file !== undefined) return file;
    throw new PodvmError('corrupt', `Cannot load ${path}: ${printable(name)}, which its manifest names, is missing`, {
      fix: brokenImageFix,
    });
  };
  const entries: DockerEntry[] = [];
  for (const { Config, RepoTags, Layers } of parseOci(`${path}: manifest.json`, manifest, dockerSchema)) {
    const text = await readDocument(path, there(Config));
    const config = parseOci(path, text, configSchema);
    entries.push({ names: RepoTags ?? [], platform: config, id: digestOf(text), config, files: Layers });
  }
  const sourceOf = ({ id, config, files }: DockerEntry) => {
    const layers = files.map((file) => ({ path: there(file) }));
    return withDiffIds(path, { id, config, layers, level: 1 }, processor);
  };
  const images: NamedSource[] = [];
  const sources = new Map<unknown, ImageSource>(); // an image may have a thousand names
  for (const { name, members } of groupByName(entries)) {
    // If none fits, the error names the platform of the first.
    const chosen = bestFirst(members, ({ platform }) => platform, processor)[0]?.one ?? members[0];
    if (chosen === undefined) continue;
    const source = sources.get(chosen) ?? sourceOf(chosen);
    sources.set(chosen, source);
    images.push({ name, source });
  }
  return mergeImages(images);
}

async function filesOfDirectory(path: string): Promise<FindFile> {
  await access(join(path, 'index.json')).catch((cause: unknown) => {
    throw noArchive(path, cause);
  });
  return (name) => (name === 'manifest.json' ? undefined : join(path, name));
}

/** Finds the members of a tar, which the importing process extracts. */
async function filesOfTar(path: string, { work, limits, signal }: ArchiveOptions): Promise<FindFile> {
  await using archive = await open(path, 'r');
  const directory = join(work, 'archive');
  const task = { kind: 'unpack', path: printable(path, maxPathChars) } as const;
  const answer = await runImport(task, [archive], { doing: `load ${path}`, limits, work: directory, signal });
  if (!('files' in answer)) throw new PodvmError('internal', `Cannot load ${path}: the answer belongs to another job`);
  const files = new Map(answer.files);
  const links = new Map(answer.links);
  // Old versions of `docker save` write a link where two images share a layer.
  return (name) => {
    const plain = posix.normalize(`/${name}`).slice(1);
    const file = files.get(plain) ?? files.get(links.get(plain) ?? '');
    return file === undefined ? undefined : join(directory, file);
  };
}

function noArchive(path: string, cause?: unknown): PodvmError {
  return new PodvmError('invalid', `Cannot load ${path}: it is not a docker-archive, OCI archive or OCI layout`, {
    cause,
    fix: archiveFix,
  });
}
