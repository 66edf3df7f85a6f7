import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { readFileIfThere, writeFileAtomic } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import type { Image } from '../images.ts';
import { imageSchema, parseVersioned } from './record-schema.ts';

/** `writtenAtMs`: when two images have one name, the later record counts. */
const recordSchema = v.object({ version: v.literal(1), writtenAtMs: v.number(), image: imageSchema });
type OwnRecord = v.InferOutput<typeof recordSchema>;

export const recordsDirectory = (directory: string) => join(directory, 'records');

function recordPath(directory: string, id: string): string {
  return join(recordsDirectory(directory), `${id.replace('sha256:', '')}.json`);
}

/**
 * Writes the records that differ, and removes those of removed images. Errors: `failedPrecondition` for records of a newer
 * podvm.
 */
export async function writeOwnRecords(directory: string, images: ReadonlyMap<string, Image>): Promise<void> {
  await mkdir(recordsDirectory(directory), { recursive: true, mode: 0o700 });
  for (const image of images.values()) {
    const path = recordPath(directory, image.id);
    const content = JSON.stringify(v.parse(imageSchema, image)); // in the order of the schema
    if (content === (await contentOf(path))) continue;
    const record = { version: 1, writtenAtMs: Date.now(), image };
    await writeFileAtomic(path, `${JSON.stringify(record, null, 2)}\n`);
  }
  const known = new Set([...images.keys()].map((id) => recordPath(directory, id)));
  for (const name of await readdir(recordsDirectory(directory))) {
    const path = join(recordsDirectory(directory), name);
    if (!known.has(path)) await rm(path, { recursive: true, force: true });
  }
}

async function contentOf(path: string): Promise<string | undefined> {
  try {
    return JSON.stringify(parseVersioned(path, (await readFileIfThere(path)) ?? '', recordSchema).image);
  } catch (error) {
    if (error instanceof PodvmError) throw error;
    return undefined; // damaged: it is overwritten
  }
}

/**
 * Returns the images from their own records. An image whose record is damaged is lost, since only the record describes
 * the file. Errors: `failedPrecondition` for records of a newer podvm.
 */
export async function rebuildImages(directory: string, log: Log): Promise<readonly Image[]> {
  const records: OwnRecord[] = [];
  const names = await readdir(recordsDirectory(directory)).catch(() => []); // no image was ever added
  for (const name of names.filter((each) => each.endsWith('.json'))) {
    const path = join(recordsDirectory(directory), name);
    try {
      const record = parseVersioned(path, (await readFileIfThere(path)) ?? '', recordSchema);
      if (recordPath(directory, record.image.id) !== path) throw new Error('it is the record of another image');
      records.push(record);
    } catch (error) {
      if (error instanceof PodvmError) throw error;
      log.warn('record of an image is damaged: the image is lost', { path, why: messageOf(error) });
    }
  }
  return withOneOwnerEach(records.sort((a, b) => b.writtenAtMs - a.writtenAtMs).map(({ image }) => image));
}

/** Leaves each name with the first image that has it. */
function withOneOwnerEach(images: readonly Image[]): readonly Image[] {
  const taken = new Set<string>();
  return images.map((image) => {
    const references = image.references.filter((reference) => !taken.has(reference));
    for (const reference of references) taken.add(reference);
    return { ...image, references };
  });
}
