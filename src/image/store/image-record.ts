import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import { type Log, silentLog } from '#host/log/log.ts';
import { volumePaths } from '../image-volumes.ts';
import type { Image, SharedLayer } from '../images.ts';
import type { OciConfig } from '../oci.ts';
import { rebuildImages, writeOwnRecords } from './own-records.ts';
import { imageSchema, parseVersioned } from './record-schema.ts';
import { type ImagePaths, lookAt } from './rootfs-file.ts';

/**
 * `<images>/index.json`: all images, readable with cat; `<images>/rootfs/<hex>.erofs`: their own files;
 * `<images>/layers/<hex>`: their shared layers, by the digests of the files; `<images>/members/<hex>`: lists of what is in these;
 * `<images>/records/<hex>.json`: a copy of each image's entry, in case the index is damaged.
 */
const indexSchema = v.object({ version: v.literal(1), images: v.array(imageSchema) });

export const rootfsDirectory = (directory: string) => join(directory, 'rootfs');
const indexPath = (directory: string) => join(directory, 'index.json');

export function rootfsPath(directory: string, id: string): string {
  return join(rootfsDirectory(directory), `${id.replace('sha256:', '')}.erofs`);
}

export const layersDirectory = (directory: string) => join(directory, 'layers');

export const membersDirectory = (directory: string) => join(directory, 'members');

export function layerPath(directory: string, digest: string): string {
  return join(layersDirectory(directory), digest.replace('sha256:', ''));
}

export function membersPath(directory: string, digest: string): string {
  return join(membersDirectory(directory), digest.replace('sha256:', ''));
}

/** Returns the paths of layers and of the lists of their members. */
export function layerFiles(directory: string, layers: readonly SharedLayer[]): readonly string[] {
  return layers.flatMap(({ digest, source }) => [
    layerPath(directory, digest),
    ...(source === undefined ? [] : [membersPath(directory, source.members)]),
  ]);
}

export function pathsOf(directory: string, { id, layers = [] }: Image): ImagePaths {
  return { rootfs: rootfsPath(directory, id), layers: layers.map(({ digest }) => layerPath(directory, digest)) };
}

/**
 * Reads the images on disk; those with a missing or damaged file stay, marked as damaged. Files without a record are
 * removed. A damaged index is set aside, and a missing or damaged one is rebuilt from the images' own records. Errors:
 * `failedPrecondition` for records of a newer podvm, which are left untouched.
 */
export async function readRecords(directory: string, log: Log = silentLog): Promise<Map<string, Image>> {
  const images = new Map<string, Image>();
  for (const image of (await readIndex(directory, log)) ?? (await rebuilt(directory, log))) {
    const look = await lookAt(pathsOf(directory, image), image);
    images.set(image.id, look.kind === 'damaged' ? { ...image, damaged: look.reason } : image);
    if (look.kind === 'damaged') log.warn('image damaged', { image: image.id, why: look.reason });
  }
  const known = new Set(
    [...images.values()].flatMap(({ id, layers = [] }) => [
      rootfsPath(directory, id),
      ...layerFiles(directory, layers),
    ]),
  );
  for (const inside of [rootfsDirectory, layersDirectory, membersDirectory])
    await removeOthers(inside(directory), known);
  await writeOwnRecords(directory, images).catch((error: unknown) => {
    if (error instanceof PodvmError) throw error;
    log.error("images' own records cannot be written", error); // the index has the same content
  });
  return images;
}

async function removeOthers(directory: string, known: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    if (!known.has(path)) await rm(path, { recursive: true, force: true });
  }
}

/** Returns undefined when there is no readable index; an unreadable one is set aside. */
async function readIndex(directory: string, log: Log): Promise<readonly Image[] | undefined> {
  const path = indexPath(directory);
  try {
    const text = await readFileIfThere(path);
    return text === undefined ? undefined : parseVersioned(path, text, indexSchema).images;
  } catch (error) {
    if (error instanceof PodvmError) throw error;
    const aside = `${path}.damaged`;
    await rm(aside, { recursive: true, force: true });
    await rename(path, aside);
    log.warn("images' index is damaged, rebuilding it from the images' own records", { aside, why: messageOf(error) });
    return undefined;
  }
}

async function rebuilt(directory: string, log: Log): Promise<readonly Image[]> {
  const images = await rebuildImages(directory, log);
  if (images.length === 0) return images;
  log.warn("images' index rebuilt from their own records", { images: images.length });
  await writeIndex(directory, images).catch((error: unknown) => {
    log.error("images' index cannot be written", error);
  });
  return images;
}

export async function writeRecords(directory: string, images: Iterable<Image>): Promise<void> {
  const all = [...images];
  await writeIndex(directory, all);
  await writeOwnRecords(directory, new Map(all.map((image) => [image.id, image])));
}

async function writeIndex(directory: string, images: readonly Image[]): Promise<void> {
  await writeFileAtomic(indexPath(directory), `${JSON.stringify({ version: 1, images }, null, 2)}\n`);
}

/** Empty and absent mean the same in OCI's config; the result only uses absent. */
export function imageConfigOf(config: OciConfig): Image['config'] {
  const from = config.config ?? {};
  const volumes = volumePaths(from.Volumes ?? []);
  return {
    ...(from.Entrypoint?.length ? { entrypoint: from.Entrypoint } : {}),
    ...(from.Cmd?.length ? { cmd: from.Cmd } : {}),
    ...(from.Env?.length ? { env: from.Env } : {}),
    ...(from.WorkingDir ? { workingDir: from.WorkingDir } : {}),
    ...(from.User ? { user: from.User } : {}),
    ...(from.StopSignal ? { stopSignal: from.StopSignal } : {}),
    ...(volumes.length > 0 ? { volumes } : {}),
  };
}
