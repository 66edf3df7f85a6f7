import type { Image } from './images.ts';
import { formatReference, isImageId, nameOf, parseReference, type Reference } from '#base/image-reference.ts';

/** Names under which one image arrives. */
export interface Names {
  readonly references: readonly string[];
  readonly digests: readonly string[];
}

/** Images by their ids. */
export type ImagesById = ReadonlyMap<string, Image>;

export interface FoundImage {
  readonly image: Image;
  /** Kind of the match: a name stands only for itself, an id for the image with all its names. */
  readonly by: 'name' | 'id';
}

const idPrefix = /^[0-9a-f]{12,64}$/;

/**
 * Returns the names from a registry's answer. A tag is among them only if the request was for the tag, since a digest
 * says nothing about the current meaning of a tag. `resolved`: digests of the manifest and of the indexes that led to
 * it.
 */
export function namesOf(reference: Reference, resolved: readonly string[]): Names {
  return {
    references: reference.digest === undefined ? [formatReference(reference)] : [],
    digests: resolved.map((digest) => `${nameOf(reference)}@${digest}`),
  };
}

/** Returns the full name of a blob. */
export const blobName = (repository: string, digest: string) => `${repository}@${digest}`;

/** Finds an image by name, whole id, or the first 12 or more digits of an id, in this order. Errors: `invalid`. */
export function findImage(images: ImagesById, wanted: string): FoundImage | undefined {
  const byId = isImageId(wanted) ? images.get(`sha256:${wanted.replace('sha256:', '')}`) : undefined;
  if (byId !== undefined) return { image: byId, by: 'id' };
  if (isImageId(wanted)) return undefined;
  const full = formatReference(parseReference(wanted));
  for (const image of images.values()) {
    if (image.references.includes(full) || image.digests.includes(full)) return { image, by: 'name' };
  }
  const [only, ...more] = idPrefix.test(wanted)
    ? [...images.values()].filter(({ id }) => id.startsWith(`sha256:${wanted}`))
    : [];
  return only === undefined || more.length > 0 ? undefined : { image: only, by: 'id' };
}

/** Whether an image has all of these names; no other image then has one of them. */
export function hasNames({ references, digests }: Image, names: Names): boolean {
  return (
    names.references.every((one) => references.includes(one)) && names.digests.every((one) => digests.includes(one))
  );
}

/** Returns the images that change when an image gets these names: the image, and those that had the names before. */
export function withNames(images: ImagesById, image: Image, names: Names): readonly Image[] {
  const losers = [...images.values()].filter(
    ({ id, references, digests }) =>
      id !== image.id &&
      (references.some((one) => names.references.includes(one)) || digests.some((one) => names.digests.includes(one))),
  );
  const without = (had: readonly string[], taken: readonly string[]) => had.filter((one) => !taken.includes(one));
  return [
    ...losers.map((loser) => ({
      ...loser,
      references: without(loser.references, names.references),
      digests: without(loser.digests, names.digests),
    })),
    {
      ...image,
      references: [...new Set([...image.references, ...names.references])],
      digests: [...new Set([...image.digests, ...names.digests])],
    },
  ];
}

/**
 * Returns the image without one of its names, and the removed names. Digests belong to a repository: as in Docker, all
 * of them go with its last tag, because those of an index and of its manifest came together.
 */
export function withoutName(
  image: Image,
  name: string,
): { readonly image: Image; readonly untagged: readonly string[] } {
  const reference = parseReference(name);
  const isOfRepository = (full: string) => nameOf(parseReference(full)) === nameOf(reference);
  const full = formatReference(reference);
  const references = image.references.filter((one) => one !== full);
  const takesDigests = reference.digest !== undefined || !references.some(isOfRepository);
  const digests = takesDigests ? image.digests.filter((one) => !isOfRepository(one)) : image.digests;
  const untagged = [...image.references, ...image.digests].filter(
    (one) => !references.includes(one) && !digests.includes(one),
  );
  return { image: { ...image, references, digests }, untagged };
}
