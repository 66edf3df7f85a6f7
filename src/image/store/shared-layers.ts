import { link, lstat, mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { createGate } from '#host/gate.ts';
import { run } from '#host/process/run.ts';
import { type MadeFile, type MadeLayer, maxSharedLayers, type StoredLayers } from '../flatten.ts';
import type { FileFacts, Image, SharedLayer } from '../images.ts';
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
   * afterwards are removed again. Files that are there already are compared before, while others add and remove images.
   * Errors: those of `use`, `corrupt` (a digest is not that of the file), `cancelled`.
   */
  async add<T>(
    made: readonly MadeLayer[],
    use: (layers: readonly SharedLayer[]) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const files = this.#places(made);
    for (;;) {
      const found = new Map<string, Compared | undefined>();
      for (const [place, file] of files) found.set(place, await compare(file, place, signal));
      using _turn = await this.#gate.enter(signal);
      if (!(await areUnchanged(found))) continue;
      try {
        for (const [place, { path }] of files) if (found.get(place)?.isSame !== true) await rename(path, place);
        const layers: SharedLayer[] = [];
        for (const layer of made) layers.push(await this.#recordOf(layer));
        return await use(layers);
      } finally {
        await this.#removeUnused([...files.keys()]);
      }
    }
  }

  /** The files by the paths where they belong. Of two with the same place, either will do: they come from one image. */
  #places(made: readonly MadeLayer[]): ReadonlyMap<string, MadeFile> {
    return new Map(
      made.flatMap(({ path, digest, members, pulled }) => [
        [layerPath(this.#directory, digest), { path, digest }] as const,
        ...(pulled === undefined ? [] : [[membersPath(this.#directory, members.digest), members] as const]),
      ]),
    );
  }

  async #recordOf({ digest, members, pulled }: MadeLayer): Promise<SharedLayer> {
    const layer = await sharedLayer(layerPath(this.#directory, digest), digest);
    return pulled === undefined ? layer : { ...layer, source: { members: members.digest, ...pulled } };
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
    // The newest first: it was fetched where an older one was no use.
    const sound = [...this.#images.values()].filter(({ damaged }) => damaged === undefined).toReversed();
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

/** A file that is stored, and whether its bytes are those of the file that is to be. */
interface Compared extends FileFacts {
  readonly isSame: boolean;
}

/** Compares a file with that which is at its place, if one is. Errors: `corrupt` when they differ, and the digest is not that of the new one. */
async function compare({ path, digest }: MadeFile, place: string, signal: AbortSignal): Promise<Compared | undefined> {
  const facts = await factsAt(place);
  if (facts === undefined) return undefined;
  const isSame = await hasSameBytes(path, place, signal).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return false; // its last image was removed meanwhile
  });
  // If they differ, one of them is damaged, or a process has stated a wrong digest.
  if (!isSame && (await wholeDigest(path, false, signal)) !== digest)
    throw new PodvmError('corrupt', 'Cannot add the image: the content of a layer has another digest than stated');
  return { ...facts, isSame };
}

async function areUnchanged(found: ReadonlyMap<string, FileFacts | undefined>): Promise<boolean> {
  for (const [place, before] of found) {
    const now = await factsAt(place);
    if (now?.inode !== before?.inode || now?.mtimeNs !== before?.mtimeNs) return false;
  }
  return true;
}

async function factsAt(path: string): Promise<FileFacts | undefined> {
  try {
    const { ino, mtimeNs } = await lstat(path, { bigint: true });
    return { inode: String(ino), mtimeNs: String(mtimeNs) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined; // SAFE: lstat throws system errors only
    throw error;
  }
}

async function hasSameBytes(path: string, other: string, signal: AbortSignal): Promise<boolean> {
  const [one, two] = await Promise.all([path, other].map(async (each) => await stat(each, { bigint: true })));
  if (one?.ino === two?.ino && one?.dev === two?.dev) return true;
  const options = { signal, timeoutMs: compareTimeoutMs, okCodes: [0, 1, 2] } as const; // 2: the other cannot be read
  return (await run('cmp', ['-s', '--', path, other], options)).code === 0;
}
