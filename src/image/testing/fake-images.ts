import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { CountedImages } from '../image-counts.ts';
import type { HeldImage, Image, ImageConfig, ImageStore, LoadedImage } from '../images.ts';
import { findImage, namesOf, withNames, withoutName, type FoundImage, type Names } from '../names.ts';
import { baseReference } from '../source/base-image.ts';
import { mendImage } from '../store/mend-image.ts';
import { formatReference, isImageId, parseReference } from '#base/image-reference.ts';

export interface FakeImagesOptions {
  /** Directory of the images' files, created when needed. */
  readonly directory: string;
  /** The registry's content by full name; undefined: missing. Default: an image for each name. */
  readonly registry?: (reference: string) => ImageConfig | undefined;
}

/** Images without layers, which appear when pulled; checked by `images.conformance.ts`. */
export interface FakeImages extends ImageStore {
  readonly pulls: { readonly reference: string; readonly authFile: string | undefined }[];
  /** Number of held images. */
  readonly held: number;
  /** Runs in each pull. */
  onPull: (signal: AbortSignal, authFile: string | undefined) => Promise<void>;
  damage(reference: string, more?: Partial<Image>): void;
}

const sizeBytes = 1000;
const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

export function createFakeImages({ directory, registry = () => ({ cmd: ['run'] }) }: FakeImagesOptions): FakeImages {
  const images = new Map<string, Image>();
  const holds = new Map<string, number>();
  const fileOf = (id: string) => join(directory, `${id.replace(':', '-')}.erofs`);

  const name = (image: Image, names: Names): Image => {
    for (const one of withNames(images, images.get(image.id) ?? image, names)) images.set(one.id, one);
    return images.get(image.id) ?? image;
  };
  const add = (id: string, config: ImageConfig, names: Names): Image => {
    mkdirSync(directory, { recursive: true });
    writeFileSync(fileOf(id), '');
    const { damaged: _, ...known } = images.get(id) ?? { id, references: [], digests: [], damaged: '' };
    const image: Image = { ...known, sizeBytes, createdAt: '2026-01-01T00:00:00Z', config };
    images.set(id, image);
    return name(image, names);
  };
  const find = (verb: string, reference: string): FoundImage => {
    const found = findImage(images, reference);
    if (found !== undefined) return found;
    throw new PodvmError('notFound', `Cannot ${verb} image ${reference}: it is not here`);
  };
  const remove = async ({ id }: Image, reference: string) => {
    if ((holds.get(id) ?? 0) > 0) throw new PodvmError('busy', `Cannot remove image ${reference}: a pod uses it`);
    images.delete(id);
    await rm(fileOf(id), { force: true });
  };
  const hold = ({ id, config }: Image): HeldImage => {
    holds.set(id, (holds.get(id) ?? 0) + 1);
    let isHeld = true;
    return {
      id,
      config,
      rootfsPath: fileOf(id),
      layerPaths: [],
      findDamage: async () => images.get(id)?.damaged,
      [Symbol.asyncDispose]: async () => {
        if (isHeld) holds.set(id, (holds.get(id) ?? 1) - 1);
        isHeld = false;
      },
    };
  };
  const store: FakeImages = {
    counts: new CountedImages(),
    pulls: [],
    get held() {
      return [...holds.values()].reduce((sum, count) => sum + count, 0);
    },
    onPull: () => Promise.resolve(),
    async pull(reference, { authFile }, signal) {
      const parsed = parseReference(reference);
      const full = formatReference(parsed);
      if (signal.aborted) throw new PodvmError('cancelled', `Cannot pull ${full}: cancelled`);
      store.pulls.push({ reference, authFile });
      await store.onPull(signal, authFile);
      if (signal.aborted) throw new PodvmError('cancelled', `Cannot pull ${full}: cancelled`);
      const known = parsed.digest === undefined ? undefined : findImage(images, full)?.image;
      const config = known?.config ?? registry(full);
      if (config === undefined) throw new PodvmError('notFound', `Cannot pull ${full}: no such image`);
      const id = known?.id ?? sha256(`config of ${full}`);
      return add(id, config, namesOf(parsed, [parsed.digest ?? sha256(`manifest of ${full}`)]));
    },
    async load(path, given): Promise<readonly LoadedImage[]> {
      const names = [formatReference(parseReference(given ?? `loaded/${path.split('/').at(-1) ?? ''}`))];
      return [{ ...add(sha256(path), { cmd: ['run'] }, { references: names, digests: [] }), names }];
    },
    buildBase: async () => add(sha256(baseReference), { cmd: ['sh'] }, { references: [baseReference], digests: [] }),
    list: () => [...images.values()].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1)),
    get: (reference) => findImage(images, reference)?.image,
    async hold(reference, policy, signal, options = {}) {
      signal.throwIfAborted();
      const isBase = !isImageId(reference) && formatReference(parseReference(reference)) === baseReference;
      const found = policy === 'Always' && !isBase ? undefined : store.get(reference);
      if (isBase && found === undefined) return hold(await store.buildBase({}, signal));
      if (found === undefined && policy === 'Never')
        throw new PodvmError('notFound', `Cannot use image ${reference}: it is not here, and imagePullPolicy is Never`);
      if (found === undefined) return hold(await store.pull(reference, options, signal));
      if (found.damaged === undefined) return hold(found);
      return hold(await mendImage(reference, found, policy, (digest) => store.pull(digest, options, signal)));
    },
    check: async (id) => find('check', id).image,
    async tag(reference, tagged) {
      const parsed = parseReference(tagged);
      if (parsed.digest !== undefined)
        throw new PodvmError('invalid', `Cannot give an image the name ${tagged}: a digest is no tag`);
      return name(find('tag', reference).image, { references: [formatReference(parsed)], digests: [] });
    },
    async untag(reference) {
      const { image, by } = find('remove', reference);
      const all = [...image.references, ...image.digests];
      const { image: left, untagged } = by === 'id' ? { image, untagged: all } : withoutName(image, reference);
      if (untagged.length < all.length) {
        images.set(left.id, left);
        return { untagged };
      }
      await remove(image, reference);
      return { untagged, removed: image.id };
    },
    async remove(reference) {
      const { image } = find('remove', reference);
      await remove(image, reference);
      return image;
    },
    damage(reference, more = {}) {
      const { image } = find('damage', reference);
      images.set(image.id, { ...image, damaged: 'its file is gone', ...more });
    },
  };
  return store;
}

const nameOf = ({ references, digests, id }: Image) => references[0] ?? digests[0] ?? id;
