import { stat } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { isHandler } from '../handlers.ts';
import { inParts } from '../in-parts.ts';
import type { KnownPods } from '../known-pods.ts';
import type { Answer, EncodedAnswer, Verbs } from '../rpc/service.ts';
import {
  FilesystemUsageSchema,
  type FilesystemUsage,
  type ImageFilter,
  type Image,
  ImageSchema,
  ImageService,
  ImageStatusRequestSchema,
  type PullImageRequest,
  RemoveImageRequestSchema,
  UInt64ValueSchema,
} from '../schema/api_pb.ts';
import { chooseRuntime, type Runtime } from './choose-runtime.ts';
import type { Delegate } from './delegate.ts';
import { type DelegateLists, isSamePod } from './delegate-lists.ts';

type OwnVerbs = Verbs<typeof ImageService>;
type Usage = Answer<typeof FilesystemUsageSchema>;

export interface ImageRouteParts {
  readonly delegate: Delegate;
  readonly lists: DelegateLists;
  readonly pods: KnownPods;
}

const { method } = ImageService;

/**
 * Merges the images of the delegate with ours. An image is pulled by the runtime that will run it: that of the
 * request's runtime handler, or that of its pod. An image that either has is present; an image of both appears once in
 * lists, and is removed from both.
 */
export function routeImages(own: OwnVerbs, parts: ImageRouteParts): Verbs<typeof ImageService, EncodedAnswer> {
  const { delegate } = parts;
  const all = async (
    filter: ImageFilter | undefined,
    ours: readonly Answer<typeof ImageSchema>[],
    signal: AbortSignal,
  ) => {
    const request = filter === undefined ? {} : { filter };
    const theirs = (await delegate.askPart(method.listImages, request, signal))?.images ?? [];
    return mergeImages(ours, theirs);
  };
  return {
    listImages: async (request, signal, bytes) => {
      const { images = [] } = await own.listImages(request, signal, bytes);
      return { images: await all(request.filter, images, signal) };
    },
    async *streamImages(request, signal) {
      const ours: Answer<typeof ImageSchema>[] = [];
      for await (const { images = [] } of own.streamImages(request, signal)) ours.push(...images);
      for (const images of inParts(await all(request.filter, ours, signal))) yield { images };
    },
    imageStatus: async (request, signal, bytes) => {
      const only = runtimeOfHandler(request.image?.runtimeHandler);
      if (only === 'delegate') return await delegate.forward(method.imageStatus, bytes, signal);
      const answer = await own.imageStatus(request, signal, bytes);
      if (answer.image !== undefined || only === 'podvm') return answer;
      return (await delegate.askPart(method.imageStatus, request, signal)) ?? answer;
    },
    pullImage: async (request, signal, bytes) =>
      (await runnerOf(request, parts, signal)) === 'podvm'
        ? await own.pullImage(request, signal, bytes)
        : await delegate.forward(method.pullImage, bytes, signal),
    removeImage: async (request, signal, bytes) => {
      const { image = {} } = request;
      const ours = (await own.imageStatus(create(ImageStatusRequestSchema, { image }), signal, bytes)).image;
      const theirs = await delegate.askPart(method.imageStatus, { image }, signal);
      // The names of an image need not be the same in both.
      const ids = new Set([ours?.id, theirs?.image?.id].filter((id) => id !== undefined));
      for (const id of ids) {
        await own.removeImage(create(RemoveImageRequestSchema, { image: { image: id } }), signal, bytes);
        // An image that is left in a delegate that is away is listed again when the delegate is back.
        if (theirs !== undefined) await delegate.ask(method.removeImage, { image: { image: id } }, signal);
      }
      return ids.size > 0 ? {} : await delegate.forward(method.removeImage, bytes, signal);
    },
    imageFsInfo: async (request, signal, bytes) => {
      const ours = await own.imageFsInfo(request, signal, bytes);
      const theirs = await delegate.askPart(method.imageFsInfo, {}, signal);
      if (theirs === undefined) return ours;
      const [imageFilesystems, containerFilesystems] = await Promise.all([
        mergeUsages(ours.imageFilesystems ?? [], theirs.imageFilesystems),
        mergeUsages(ours.containerFilesystems ?? [], theirs.containerFilesystems),
      ]);
      return { imageFilesystems, containerFilesystems };
    },
  };
}

/** Returns undefined if no handler is named, because either runtime may have the image then. */
function runtimeOfHandler(handler = ''): Runtime | undefined {
  if (handler === '') return undefined;
  return isHandler(handler) ? 'podvm' : 'delegate';
}

/**
 * Returns the runtime that will run a pulled image: that of the named handler, or that of the pod, whose sandbox a
 * kubelet makes first. A pull without either, such as that of `crictl pull`, is ours.
 */
async function runnerOf(
  { image, sandboxConfig }: PullImageRequest,
  { delegate, lists, pods }: ImageRouteParts,
  signal: AbortSignal,
): Promise<Runtime> {
  const named = runtimeOfHandler(image?.runtimeHandler);
  const metadata = sandboxConfig?.metadata;
  if (named !== undefined || metadata === undefined) return named ?? 'podvm';
  if ([...pods.pods].some(({ config }) => isSamePod(config.metadata, metadata))) return 'podvm';
  if (await lists.hasPod(metadata, signal)) return 'delegate';
  return chooseRuntime(sandboxConfig, '', delegate.settings.namespaces);
}

/** Merges images with the same id, which is the digest of an image's configuration in all runtimes. */
export function mergeImages(
  own: readonly Answer<typeof ImageSchema>[],
  theirs: readonly Image[],
): Answer<typeof ImageSchema>[] {
  const byId = new Map(theirs.map((image) => [image.id, image]));
  const merged = own.map((ours) => {
    const other = byId.get(ours.id ?? '');
    if (other === undefined) return ours;
    byId.delete(other.id);
    const image = create(ImageSchema, ours);
    image.repoTags = [...new Set([...image.repoTags, ...other.repoTags])];
    image.repoDigests = [...new Set([...image.repoDigests, ...other.repoDigests])];
    image.size += other.size;
    image.pinned ||= other.pinned;
    return image;
  });
  return [...merged, ...byId.values()];
}

/** Adds up the usage of one file system, under podvm's name for it, since a kubelet reads the first entry only. */
async function mergeUsages(own: readonly Usage[], theirs: readonly FilesystemUsage[]): Promise<Usage[]> {
  const merged = await Promise.all(own.map(async (usage) => ({ usage, device: await deviceOf(usage) })));
  const others: Usage[] = [];
  for (const usage of theirs) {
    const device = await deviceOf(usage);
    const same = device === undefined ? undefined : merged.find((each) => each.device === device);
    if (same === undefined) others.push(usage);
    else same.usage = sumOf(same.usage, usage);
  }
  return [...merged.map(({ usage }) => usage), ...others];
}

function sumOf(one: Usage, other: FilesystemUsage): Usage {
  const sum = create(FilesystemUsageSchema, one);
  sum.usedBytes = create(UInt64ValueSchema, { value: (sum.usedBytes?.value ?? 0n) + (other.usedBytes?.value ?? 0n) });
  sum.inodesUsed = create(UInt64ValueSchema, {
    value: (sum.inodesUsed?.value ?? 0n) + (other.inodesUsed?.value ?? 0n),
  });
  return sum;
}

/** Returns undefined for a directory that does not exist yet. */
async function deviceOf({ fsId }: Usage): Promise<number | undefined> {
  return await stat(fsId?.mountpoint ?? '').then(
    ({ dev }) => dev,
    () => undefined,
  );
}
