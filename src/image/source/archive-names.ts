import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ImageSource } from './layout.ts';
import { brokenImageFix, type OciPlatform } from '../oci.ts';
import { describePlatform } from './platform.ts';
import { formatReference, isTag, parseReference } from '#base/image-reference.ts';

/** One image of an archive, with its names. */
export interface ArchivedImage {
  /** Names as written in the archive; a bare tag (`1.27`) does not name an image. */
  readonly names: readonly string[];
  readonly source: ImageSource;
}

export interface NamedSource {
  readonly name: string | undefined;
  readonly source: ImageSource;
}

interface Entry {
  readonly names: readonly string[];
  readonly platform: OciPlatform | undefined;
}

/**
 * Groups the entries of an archive by image. Entries of the same name are one image; entries without a name are one
 * image if each is for another processor, and otherwise an image each.
 */
export function groupByName<E extends Entry>(
  entries: readonly E[],
): readonly { readonly name: string | undefined; readonly members: readonly E[] }[] {
  const named = new Map<string, E[]>();
  for (const entry of entries) {
    for (const name of new Set(entry.names)) named.set(name, [...(named.get(name) ?? []), entry]);
  }
  const nameless = entries.filter(({ names }) => names.length === 0);
  const platforms = nameless.map(({ platform }) => (platform === undefined ? '' : describePlatform(platform)));
  const isOne = nameless.length > 0 && !platforms.includes('') && new Set(platforms).size === platforms.length;
  return [
    ...[...named].map(([name, members]) => ({ name, members })),
    ...(isOne ? [nameless] : nameless.map((entry) => [entry])).map((members) => ({ name: undefined, members })),
  ];
}

/** Returns one entry per image, with all its names. */
export function mergeImages(found: readonly NamedSource[]): readonly ArchivedImage[] {
  const merged = new Map<string, { names: string[]; source: ImageSource }>();
  for (const { name, source } of found) {
    const image = merged.get(source.id) ?? { names: [], source };
    if (name !== undefined) image.names.push(name);
    merged.set(source.id, image);
  }
  return [...merged.values()];
}

/**
 * Returns the references that loading gives to the images of an archive: `given` instead of their own names. A bare tag
 * would become a repository of Docker Hub, so it is not used. Errors: `invalid`, with the reference to give.
 */
export function loadNames(
  path: string,
  archived: readonly ArchivedImage[],
  given: string | undefined,
): readonly { readonly source: ImageSource; readonly references: readonly string[] }[] {
  const refuse = (reason: string, fix: string) => new PodvmError('invalid', `Cannot load ${path}: ${reason}`, { fix });
  if (archived.length === 0) throw refuse('it contains no image', brokenImageFix);
  if (given !== undefined) {
    const reference = parseReference(given);
    if (reference.digest !== undefined)
      throw refuse('a digest cannot be given as a name', 'Give a tag, such as app:1.');
    const references = [formatReference(reference)];
    if (archived.length === 1) return archived.map(({ source }) => ({ source, references }));
    throw refuse(`it has ${archived.length} images, and one name was given`, 'Save the images one by one.');
  }
  return archived.map(({ source, names }) => {
    const tag = names.find(isTag);
    const parsed = names.filter((name) => !isTag(name)).map((name) => parseReference(name));
    // A name with a digest shows the origin of the file, not the meaning of a tag.
    const references = parsed.filter(({ digest }) => digest === undefined).map(formatReference);
    if (references.length > 0) return { source, references };
    if (tag === undefined) throw refuse('an image in it has no name', 'Give it one with --name.');
    const example = `--name NAME:${printable(tag)}`;
    throw refuse(`an image in it has only the tag ${printable(tag)}, and no name`, `Give it one: ${example}.`);
  });
}
