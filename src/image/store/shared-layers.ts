import { rename, rm } from 'node:fs/promises';
import { PodvmError } from '#base/errors.ts';
import { createGate } from '#host/gate.ts';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import type { MadeFile } from '../flatten.ts';
import type { Image, SharedLayer } from '../images.ts';
import { layerPath } from './image-record.ts';
import { sharedLayer, wholeDigest } from './rootfs-file.ts';

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
   * Puts files into place, then calls `use`, which records the image that has them. If it fails, those that no image has are
   * removed again. Errors: those of `use`, `corrupt` (a digest is not that of the file), `cancelled`.
   */
  async add<T>(
    made: readonly MadeFile[],
    use: (layers: readonly SharedLayer[]) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    using _turn = await this.#gate.enter(signal);
    const layers: SharedLayer[] = [];
    try {
      for (const file of made) layers.push(await this.#place(file, signal));
      return await use(layers);
    } catch (error) {
      await this.#removeUnused(layers);
      throw error;
    }
  }

  async #place({ path, digest }: MadeFile, signal: AbortSignal): Promise<SharedLayer> {
    const place = layerPath(this.#directory, { digest });
    const isStored = await isThere(place);
    const isSame = isStored && (await hasSameBytes(path, place, signal));
    // If they differ, one of them is damaged, or a process has stated a wrong digest.
    if (isStored && !isSame && (await wholeDigest(path, false, signal)) !== digest)
      throw new PodvmError('corrupt', 'Cannot add the image: the content of a layer has another digest than stated');
    if (!isSame) await rename(path, place);
    return await sharedLayer(place, digest);
  }

  /** Removes the files that only a removed image had. */
  async removeOf({ layers = [] }: Image): Promise<void> {
    if (layers.length === 0) return;
    using _turn = await this.#gate.enter(new AbortController().signal);
    await this.#removeUnused(layers);
  }

  async #removeUnused(layers: readonly SharedLayer[]): Promise<void> {
    const used = new Set([...this.#images.values()].flatMap((image) => image.layers ?? []).map(({ digest }) => digest));
    for (const layer of layers)
      if (!used.has(layer.digest)) await rm(layerPath(this.#directory, layer), { force: true });
  }
}

async function hasSameBytes(path: string, other: string, signal: AbortSignal): Promise<boolean> {
  const options = { signal, timeoutMs: compareTimeoutMs, okCodes: [0, 1, 2] } as const; // 2: the other cannot be read
  return (await run('cmp', ['-s', '--', path, other], options)).code === 0;
}
