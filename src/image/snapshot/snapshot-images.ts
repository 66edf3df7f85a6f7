import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import { createGate } from '#host/gate.ts';
import { isThere, writeFileAtomic } from '#host/file/files.ts';
import type { Log } from '#host/log/log.ts';
import type { HeldImage } from '../images.ts';
import { type ImageLimits, imageLimits } from '../limits.ts';
import { SharedWork } from '../shared-work.ts';
import { flattenLayers } from './flatten-layers.ts';

/**
 * Root file systems of images that another program keeps unpacked, layer by layer, in directories or EROFS files that do not
 * change: containerd's snapshots. Each list of layers is flattened once into an EROFS file, which is removed when one of
 * its layers is gone.
 */
export interface SnapshotImages {
  /**
   * Holds the file made of these directories, topmost first. Concurrent calls share the work. Errors: `invalid`,
   * `notFound` (a directory is missing), and those of `flattenLayers`.
   */
  hold(directories: readonly string[], signal: AbortSignal): Promise<HeldImage>;
  /** Holds a file that was made before, by the image's id; undefined if it or one of its directories is gone. */
  holdMade(id: string): Promise<HeldImage | undefined>;
}

export interface SnapshotImagesOptions {
  /** Created if absent; used by one process at a time, on the file system of the sandboxes. */
  readonly directory: string;
  readonly sysroot: string;
  readonly log: Log;
  readonly limits?: ImageLimits;
}

/** Limit of snapshots that are flattened at a time; more would only compete for memory and processor. */
const maxFlattenings = 2;
const maxDirectories = 500;
const recordSchema = v.object({ version: v.literal(1), directories: v.array(v.string()), bytes: v.number() });

export async function openSnapshotImages(options: SnapshotImagesOptions): Promise<SnapshotImages> {
  const { directory } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(directory)) {
    if (name.startsWith(workPrefix)) await rm(join(directory, name), { recursive: true, force: true }); // left by a killed process
  }
  const images = new DiskSnapshotImages(options);
  await images.sweep();
  return images;
}

const workPrefix = 'work-';
const idPrefix = 'snapshot:';

/** Whether the id of a held image is that of a snapshot. */
export const isSnapshot = (imageId: string): boolean => imageId.startsWith(idPrefix);

class DiskSnapshotImages implements SnapshotImages {
  readonly #options: SnapshotImagesOptions;
  readonly #gate = createGate(maxFlattenings);
  readonly #making = new SharedWork<void>();
  /** Number of users of each file in use. */
  readonly #holds = new Map<string, number>();

  constructor(options: SnapshotImagesOptions) {
    this.#options = options;
  }

  async hold(directories: readonly string[], signal: AbortSignal): Promise<HeldImage> {
    const key = await keyOf(directories);
    const held = this.#take(key);
    try {
      if (!(await this.#isWhole(key))) {
        const flatten = (_: unknown, abort: AbortSignal) => this.#flatten(key, directories, abort);
        await this.#making.run('flatten the snapshot', key, flatten, signal);
      }
    } catch (error) {
      await held[Symbol.asyncDispose]();
      throw error;
    }
    return held;
  }

  async holdMade(id: string): Promise<HeldImage | undefined> {
    const key = id.slice(idPrefix.length);
    const held = this.#take(key);
    if ((await this.#isCurrent(key)) && (await this.#isWhole(key))) return held;
    await held[Symbol.asyncDispose]();
    return undefined;
  }

  #take(key: string): HeldImage {
    this.#holds.set(key, (this.#holds.get(key) ?? 0) + 1);
    let isHeld = true;
    const release = () => {
      if (isHeld) this.#letGo(key);
      isHeld = false;
      return Promise.resolve();
    };
    return {
      id: `${idPrefix}${key}`,
      config: {},
      rootfsPath: this.#file(key),
      layerPaths: [],
      findDamage: async () => {
        if (await this.#isWhole(key)) return undefined;
        await this.#remove(key);
        return 'its file does not have the size that was written';
      },
      [Symbol.asyncDispose]: release,
    };
  }

  #letGo(key: string): void {
    const left = (this.#holds.get(key) ?? 1) - 1;
    if (left > 0) this.#holds.set(key, left);
    else this.#holds.delete(key);
  }

  /** Removes files whose directories are gone or have been replaced. */
  async sweep(): Promise<void> {
    for (const name of await readdir(this.#options.directory)) {
      const key = /^([0-9a-f]{64})\.(?:json|erofs)$/.exec(name)?.[1];
      if (key === undefined || this.#holds.has(key)) continue;
      if ((await this.#isCurrent(key)) || this.#holds.has(key)) continue;
      await this.#remove(key);
      this.#options.log.info('flattened snapshot removed', { snapshot: key });
    }
  }

  async #flatten(key: string, directories: readonly string[], signal: AbortSignal): Promise<void> {
    using _turn = await this.#gate.enter(signal);
    const { directory, sysroot, log, limits = imageLimits } = this.#options;
    await this.sweep().catch((error: unknown) => log.warn('old snapshots not removed', { why: messageOf(error) }));
    const startedMs = performance.now();
    const work = await mkdtemp(join(directory, workPrefix));
    try {
      const file = await flattenLayers(directories, { sysroot, work, limits, signal });
      const { size } = await stat(file);
      const record = { version: 1, directories, bytes: size };
      await writeFileAtomic(join(directory, `${key}.json`), `${JSON.stringify(record)}\n`);
      await rename(file, this.#file(key));
      log.info('snapshot flattened', { snapshot: key, bytes: size, ms: Math.round(performance.now() - startedMs) });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  /** Whether its directories are still those that it was made of. */
  async #isCurrent(key: string): Promise<boolean> {
    const record = await this.#read(key);
    return record !== undefined && (await keyOf(record.directories).catch(() => undefined)) === key;
  }

  async #isWhole(key: string): Promise<boolean> {
    const record = await this.#read(key);
    const found = record && (await stat(this.#file(key)).catch(() => undefined));
    return found !== undefined && found.isFile() && found.size === record?.bytes;
  }

  async #read(key: string): Promise<v.InferOutput<typeof recordSchema> | undefined> {
    const path = join(this.#options.directory, `${key}.json`);
    if (!(await isThere(path))) return undefined;
    try {
      return v.parse(recordSchema, JSON.parse(await readFile(path, 'utf8')));
    } catch {
      return undefined; // torn: the file is made again
    }
  }

  async #remove(key: string): Promise<void> {
    await rm(this.#file(key), { force: true });
    await rm(join(this.#options.directory, `${key}.json`), { force: true });
  }

  #file(key: string): string {
    return join(this.#options.directory, `${key}.erofs`);
  }
}

/**
 * Identifies directories by their paths and inodes, because a path is used again after its snapshot, or all of
 * containerd's state, was removed.
 */
async function keyOf(directories: readonly string[]): Promise<string> {
  if (directories.length === 0 || directories.length > maxDirectories) {
    throw new PodvmError('invalid', `Cannot use a snapshot of ${directories.length} layers: 1 to ${maxDirectories}`, {
      fix: 'Use an image with fewer layers.',
    });
  }
  const hash = createHash('sha256');
  for (const path of directories) {
    const found = await stat(path, { bigint: true }).catch((cause: unknown) => {
      throw new PodvmError('notFound', `Cannot use the snapshot at ${printable(path)}: it does not exist`, { cause });
    });
    hash.update(`${path}\0${found.dev}:${found.ino}:${found.birthtimeNs}\0`);
  }
  return hash.digest('hex');
}
