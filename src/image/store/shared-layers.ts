import { link, mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { createGate } from '#host/gate.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { type MadeFile, type MadeLayer, maxSharedLayers, type StoredLayers } from '../flatten.ts';
import type { Image, SharedLayer } from '../images.ts';
import { blobName } from '../names.ts';
import { layerFiles, layerPath, membersPath } from './image-record.ts';
import { isLayerIntact, sharedLayer, wholeDigest } from './rootfs-file.ts';

const compareTimeoutMs = 10 * 60_000;

/**
 * The files of large layers, by their digests. Images that have a layer in common share its file. The digest of a new file
 * is only stated by the process that read the image, whose image may be hostile: a file is shared when its bytes have been compared, and
 * never because of what that process says.
 */
export class SharedLayers {
  readonly #directory: string;
  readonly #images: ReadonlyMap<string, Image>;
  /** No file is removed while another image is about to use it. */
  readonly #gate = createGate(1);

  constructor(directory: string, images: ReadonlyMap<string, Image>) {
    this.#directory = directory;
    this.#images = images;
  }

  /**
   * Puts files into place, then calls `use`, which records the image that has them, alone at a time. Those that no image has
   * afterwards are removed again. Errors: those of `use`, `corrupt` (a digest is not that of the file), `cancelled`.
   */
  async add<T>(
    made: readonly MadeLayer[],
    use: (layers: readonly SharedLayer[]) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    using _turn = await this.#gate.enter(signal);
    const files = made.map(({ digest, members }) => [
      layerPath(this.#directory, digest),
      membersPath(this.#directory, members.digest),
    ]);
    try {
      const layers: SharedLayer[] = [];
      for (const layer of made) layers.push(await this.#addLayer(layer, signal));
      return await use(layers);
    } finally {
      await this.#removeUnused(files.flat());
    }
  }

  async #addLayer({ members, pulled, ...file }: MadeLayer, signal: AbortSignal): Promise<SharedLayer> {
    const place = layerPath(this.#directory, file.digest);
    await this.#place(file, place, signal);
    const layer = await sharedLayer(place, file.digest);
    if (pulled === undefined) return layer;
    await this.#place(members, membersPath(this.#directory, members.digest), signal);
    return { ...layer, source: { members: members.digest, ...pulled } };
  }

  async #place({ path, digest }: MadeFile, place: string, signal: AbortSignal): Promise<void> {
    const isStored = await isThere(place);
    const isSame = isStored && (await hasSameBytes(path, place, signal));
    // If they differ, one of them is damaged, or a process has stated a wrong digest.
    if (isStored && !isSame && (await wholeDigest(path, false, signal)) !== digest)
      throw new PodvmError('corrupt', 'Cannot add the image: the content of a layer has another digest than stated');
    if (!isSame) await rename(path, place);
  }

  /**
   * Finds layers with these blobs among those that were pulled from the same repository, and links their files into a
   * directory, since their images may be removed meanwhile. A layer from another repository is no source, also of an image that
   * has a name of this one as well: its maker may have had the process that read it list members that the layer does not
   * have, and its readers need not be those of this repository. Finds no more than an image may have.
   */
  async find(
    repository: string,
    blobs: readonly string[],
    directory: string,
    signal: AbortSignal,
  ): Promise<StoredLayers> {
    const found = new Map<string, { readonly diffId: string; readonly files: MadeLayer }>();
    let left = maxSharedLayers;
    const digestsOf = new Map(blobs.map((digest) => [blobName(repository, digest), digest]));
    const sound = [...this.#images.values()].filter(({ damaged }) => damaged === undefined);
    for (const { source, ...layer } of sound.flatMap(({ layers = [] }) => layers)) {
      const digest = digestsOf.get(source?.blob ?? '');
      if (source === undefined || digest === undefined || found.has(digest)) continue;
      const times = blobs.filter((one) => one === digest).length;
      if (times > left) continue;
      const { blob, diffId, members } = source;
      const into = join(directory, `stored-${found.size}`);
      try {
        await mkdir(into, { mode: 0o700 });
        const files = { path: join(into, 'layer'), digest: layer.digest, pulled: { blob, diffId } };
        const list = { path: join(into, 'members'), digest: members };
        await link(layerPath(this.#directory, layer.digest), files.path);
        await link(membersPath(this.#directory, members), list.path);
        const isSound =
          (await isLayerIntact(files.path, layer)) && (await wholeDigest(list.path, false, signal)) === members;
        if (isSound) {
          found.set(digest, { diffId, files: { ...files, members: list } });
          left -= times;
        } else await rm(into, { recursive: true });
      } catch (error) {
        if (signal.aborted) throw error;
        // Its image was removed, or a file is lost or cannot be read: the layer is fetched.
        await rm(into, { recursive: true, force: true });
      }
    }
    return found;
  }

  /** Removes the files that only a removed image had. */
  async removeOf({ layers = [] }: Image): Promise<void> {
    if (layers.length === 0) return;
    using _turn = await this.#gate.enter(new AbortController().signal);
    await this.#removeUnused(layerFiles(this.#directory, layers));
  }

  async #removeUnused(files: readonly string[]): Promise<void> {
    const used = [...this.#images.values()].flatMap((image) => layerFiles(this.#directory, image.layers ?? []));
    for (const path of files) if (!used.includes(path)) await rm(path, { force: true });
  }
}

async function hasSameBytes(path: string, other: string, signal: AbortSignal): Promise<boolean> {
  const [one, two] = await Promise.all([path, other].map(async (each) => await stat(each, { bigint: true })));
  if (one?.ino === two?.ino && one?.dev === two?.dev) return true;
  const options = { signal, timeoutMs: compareTimeoutMs, okCodes: [0, 1, 2] } as const; // 2: the other cannot be read
  return (await run('cmp', ['-s', '--', path, other], options)).code === 0;
}
