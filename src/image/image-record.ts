import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { readFileIfThere, writeFileAtomic } from '#host/files.ts';
import { volumePaths } from './image-volumes.ts';
import type { Image } from './images.ts';
import type { OciConfig } from './oci.ts';

/** `<images>/index.json`: what is there, understandable with cat; `<images>/rootfs/<hex>.erofs`: the files. */
const imageSchema = v.object({
  id: v.string(),
  references: v.array(v.string()),
  digests: v.array(v.string()),
  sizeBytes: v.number(),
  createdAt: v.string(),
  processorLevel: v.exactOptional(v.number()),
  config: v.object({
    entrypoint: v.exactOptional(v.array(v.string())),
    cmd: v.exactOptional(v.array(v.string())),
    env: v.exactOptional(v.array(v.string())),
    workingDir: v.exactOptional(v.string()),
    user: v.exactOptional(v.string()),
    stopSignal: v.exactOptional(v.string()),
    volumes: v.exactOptional(v.array(v.string())),
  }),
});
const indexSchema = v.object({ version: v.literal(1), images: v.array(imageSchema) });

export const rootfsDirectory = (directory: string) => join(directory, 'rootfs');

export function rootfsPath(directory: string, id: string): string {
  return join(rootfsDirectory(directory), `${id.replace('sha256:', '')}.erofs`);
}

/**
 * The images on disk. One whose file is missing or has another size is forgotten (it is fetched again when wanted);
 * a file without an entry is removed. Errors: `corrupt` when the index cannot be read.
 */
export async function readRecords(directory: string): Promise<Map<string, Image>> {
  const images = new Map<string, Image>();
  for (const image of await readIndex(directory)) {
    const file = await stat(rootfsPath(directory, image.id)).catch(() => undefined);
    if (file?.size === image.sizeBytes) images.set(image.id, image);
  }
  const known = new Set([...images.keys()].map((id) => rootfsPath(directory, id)));
  for (const name of await readdir(rootfsDirectory(directory))) {
    const path = join(rootfsDirectory(directory), name);
    if (!known.has(path)) await rm(path, { force: true });
  }
  return images;
}

async function readIndex(directory: string): Promise<readonly Image[]> {
  const path = join(directory, 'index.json');
  const text = await readFileIfThere(path);
  if (text === undefined) return [];
  try {
    return v.parse(indexSchema, JSON.parse(text)).images;
  } catch (cause) {
    throw new PodvmError('corrupt', `Cannot read the images' index ${path}`, {
      cause,
      fix: 'Remove the file: images are fetched again.',
    });
  }
}

export async function writeRecords(directory: string, images: Iterable<Image>): Promise<void> {
  await writeFileAtomic(
    join(directory, 'index.json'),
    `${JSON.stringify({ version: 1, images: [...images] }, null, 2)}\n`,
  );
}

/** Empty and absent mean the same in OCI's config; here only absent is left. */
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
