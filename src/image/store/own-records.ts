import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { readFileIfThere, writeFileAtomic } from '#host/files.ts';
import type { Log } from '#host/log.ts';
import type { Image } from '../images.ts';
import { imageSchema, parseVersioned } from './record-schema.ts';

/** `writtenAtMs`: of two images that have one name, the record that was written later is right. */
const recordSchema = v.object({ version: v.literal(1), writtenAtMs: v.number(), image: imageSchema });
type OwnRecord = v.InferOutput<typeof recordSchema>;

const recordsDirectory = (directory: string) => join(directory, 'records');

function recordPath(directory: string, id: string): string {
  return join(recordsDirectory(directory), `${id.replace('sha256:', '')}.json`);
}

/**
 * Writes the records that say something else, and removes those of images that are gone. Errors: `failedPrecondition`
 * for records of a newer podvm.
 */
export async function writeOwnRecords(directory: string, images: ReadonlyMap<string, Image>): Promise<void> {
  await mkdir(recordsDirectory(directory), { recursive: true, mode: 0o755 });
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
    return undefined; // damaged, and written over
  }
}

/**
 * The images by their own records. One whose record is damaged is lost: what the file is, only that says. Errors:
 * `failedPrecondition` for records of a newer podvm.
 */
export async function rebuildImages(directory: string, log: Log): Promise<readonly Image[]> {
  const records: OwnRecord[] = [];
  const names = await readdir(recordsDirectory(directory)).catch(() => []); // there never was an image
  for (const name of names.filter((each) => each.endsWith('.json'))) {
    const path = join(recordsDirectory(directory), name);
    try {
      const record = parseVersioned(path, (await readFileIfThere(path)) ?? '', recordSchema);
      if (recordPath(directory, record.image.id) !== path) throw new Error('it is the record of another image');
      records.push(record);
    } catch (error) {
      if (error instanceof PodvmError) throw error;
      log.warn('record of an image is damaged, and the image lost', { path, why: messageOf(error) });
    }
  }
  return withOneOwnerEach(records.sort((a, b) => b.writtenAtMs - a.writtenAtMs).map(({ image }) => image));
}

/** The first image that has a name keeps it. */
function withOneOwnerEach(images: readonly Image[]): readonly Image[] {
  const taken = new Set<string>();
  return images.map((image) => {
    const references = image.references.filter((reference) => !taken.has(reference));
    for (const reference of references) taken.add(reference);
    return { ...image, references };
  });
}
