import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log.ts';
import { readArchive } from './archive.ts';
import { baseReference, makeBaseLayout } from './base-image.ts';
import { flatten } from './flatten.ts';
import type { HeldImage, Image, ImageStore, PullOptions, PullPolicy } from './images.ts';
import { imageConfigOf, readRecords, rootfsDirectory, rootfsPath, writeRecords } from './image-record.ts';
import { type ImageSource, readDocument, readLayoutImage } from './layout.ts';
import {
  brokenImageFix,
  chooseManifest,
  digestOf,
  indexSchema,
  isIndex,
  manifestSchema,
  ociArchitecture,
  parseOci,
} from './oci.ts';
import { type ImageLimits, imageLimits } from './limits.ts';
import { type Reference, formatReference, isLoopback, nameOf, parseReference } from './reference.ts';
import { type Access, Skopeo } from './skopeo.ts';

export interface ImageStoreOptions {
  /** State of images; one process at a time works in it (the sandboxes' lock sees to that). */
  readonly directory: string;
  readonly sysroot: string;
  readonly log: Log;
  /** Default `imageLimits`. */
  readonly limits?: ImageLimits;
  /** registries.conf, certs.d and policy.json for pulls; default `/etc/containers`. */
  readonly containersDirectory?: string;
  /** How long a registry may say nothing new; default 60,000 `ms`. */
  readonly answerTimeoutMs?: number;
}

/** Names under which one image arrives. */
interface Names {
  readonly references: readonly string[];
  readonly digests: readonly string[];
}

/** Opens the store and clears away what a killed process left half done. Errors: `corrupt`. */
export async function openImageStore(options: ImageStoreOptions): Promise<ImageStore> {
  const work = join(options.directory, 'work');
  await mkdir(rootfsDirectory(options.directory), { recursive: true, mode: 0o755 });
  await mkdir(work, { recursive: true, mode: 0o711 });
  for (const left of await readdir(work)) await rm(join(work, left), { recursive: true, force: true });
  return new DiskImageStore(options, work, await readRecords(options.directory));
}

class DiskImageStore implements ImageStore {
  readonly #options: ImageStoreOptions;
  readonly #work: string;
  readonly #limits: ImageLimits;
  readonly #images: Map<string, Image>;
  readonly #holds = new Map<string, number>();
  readonly #pulls = new Map<
    string,
    { readonly result: Promise<Image>; readonly abort: AbortController; readonly waiting: Set<PullOptions> }
  >();
  #writing: Promise<void> = Promise.resolve();

  constructor(options: ImageStoreOptions, work: string, images: Map<string, Image>) {
    this.#options = options;
    this.#work = work;
    this.#limits = options.limits ?? imageLimits;
    this.#images = images;
  }

  async pull(reference: string, options: PullOptions, signal: AbortSignal): Promise<Image> {
    const parsed = parseReference(reference);
    const access: Access = {
      insecure: options.insecure ?? isLoopback(parsed),
      containersDirectory: this.#options.containersDirectory ?? '/etc/containers',
      answerTimeoutMs: this.#options.answerTimeoutMs ?? 60_000,
      ...(options.authFile === undefined ? {} : { authFile: options.authFile }),
    };
    const key = JSON.stringify([formatReference(parsed), access]);
    const shared = this.#pulls.get(key) ?? this.#startPull(key, parsed, access);
    const waiter = { ...options };
    shared.waiting.add(waiter);
    try {
      return await untilAborted(shared.result, signal, `Cannot pull ${formatReference(parsed)}: cancelled`);
    } finally {
      shared.waiting.delete(waiter);
      if (shared.waiting.size === 0) shared.abort.abort(); // nobody wants it any more; too late does no harm
    }
  }

  #startPull(key: string, parsed: Reference, access: Access) {
    const abort = new AbortController();
    const waiting = new Set<PullOptions>();
    const onProgress = (message: string) => waiting.forEach((waiter) => waiter.onProgress?.(message));
    const result = this.#fetch(parsed, access, { onProgress }, abort.signal).finally(() => this.#pulls.delete(key));
    const shared = { result, abort, waiting };
    this.#pulls.set(key, shared);
    return shared;
  }

  async #fetch(reference: Reference, access: Access, options: PullOptions, signal: AbortSignal): Promise<Image> {
    return await this.#inWorkDirectory(async (directory) => {
      const full = formatReference(reference);
      const skopeo = await Skopeo.open(full, directory, access);
      const raw = await skopeo.inspectRaw(full, signal);
      if (reference.digest !== undefined && digestOf(raw) !== reference.digest) {
        throw new PodvmError(
          'corrupt',
          `Cannot pull ${full}: the registry answered with another digest, ${digestOf(raw)}`,
          { fix: brokenImageFix },
        );
      }
      const digests = [`${nameOf(reference)}@${digestOf(raw)}`];
      let manifestText = raw;
      if (isIndex(raw)) {
        const chosen = chooseManifest(full, parseOci(full, raw, indexSchema).manifests, ociArchitecture());
        digests.push(`${nameOf(reference)}@${chosen.digest}`);
        manifestText = await skopeo.inspectRaw(`${nameOf(reference)}@${chosen.digest}`, signal);
      }
      const manifest = parseOci(full, manifestText, manifestSchema);
      const names: Names = {
        references: reference.tag === undefined ? [] : [`${nameOf(reference)}:${reference.tag}`],
        digests,
      };
      const known = this.#images.get(manifest.config.digest);
      if (known !== undefined) return await this.#name(known, names);

      const sum = megabytes(manifest.layers.reduce((bytes, layer) => bytes + layer.size, 0));
      options.onProgress?.(`pulling ${full} (${manifest.layers.length} layers, ${sum} MB)`);
      const onBytes = (bytes: number) => options.onProgress?.(`pulling ${full}: ${megabytes(bytes)} of ${sum} MB`);
      const pinned = `${nameOf(reference)}@${digestOf(manifestText)}`;
      const layout = await skopeo.copyToLayout(pinned, onBytes, signal);
      const source = await onlyImageOf(full, layout);
      return await this.#add(full, source, directory, names, options, signal);
    });
  }

  async load(
    path: string,
    name: string | undefined,
    options: PullOptions,
    signal: AbortSignal,
  ): Promise<readonly Image[]> {
    const given = name === undefined ? undefined : formatReference(parseReference(name));
    return await this.#inWorkDirectory(async (work) => {
      const archived = await readArchive(path, { work, limits: this.#limits, signal });
      const named = archived.map(({ source, names }) => ({
        source,
        references: given === undefined ? names.map((found) => formatReference(parseReference(found))) : [given],
      }));
      if (named.length === 0)
        throw new PodvmError('invalid', `Cannot load ${path}: there is no image in it`, { fix: brokenImageFix });
      if (given !== undefined && named.length > 1) {
        throw new PodvmError('invalid', `Cannot give one name to the ${named.length} images of ${path}`);
      }
      if (named.some(({ references }) => references.length === 0)) {
        throw new PodvmError('invalid', `Cannot load ${path}: an image in it has no name`, {
          fix: 'Give it one with --name.',
        });
      }
      const images: Image[] = [];
      for (const { source, references } of named) {
        images.push(await this.#take(source, { references, digests: [] }, options, signal));
      }
      return images;
    });
  }

  async buildBase(options: PullOptions, signal: AbortSignal): Promise<Image> {
    return await this.#inWorkDirectory(async (directory) => {
      const layout = await makeBaseLayout(this.#options.sysroot, directory, signal);
      const source = await onlyImageOf(baseReference, layout);
      return await this.#take(source, { references: [baseReference], digests: [] }, options, signal);
    });
  }

  async #take(source: ImageSource, names: Names, options: PullOptions, signal: AbortSignal): Promise<Image> {
    return await this.#inWorkDirectory(
      async (directory) => await this.#add(names.references[0] ?? source.id, source, directory, names, options, signal),
    );
  }

  /** Makes the rootfs of an image, unless it is there, and publishes it. */
  async #add(
    what: string,
    source: ImageSource,
    directory: string,
    names: Names,
    options: PullOptions,
    signal: AbortSignal,
  ): Promise<Image> {
    const known = this.#images.get(source.id);
    if (known !== undefined) return await this.#name(known, names);
    options.onProgress?.(`flattening ${what}`);
    const { sysroot } = this.#options;
    const file = await flatten(source.layers, { sysroot, directory, signal, limits: this.#limits });
    const path = rootfsPath(this.#options.directory, source.id);
    await rename(file, path);
    const { size } = await stat(path);
    const image: Image = {
      id: source.id,
      references: [],
      digests: [],
      sizeBytes: size,
      createdAt: new Date().toISOString(),
      config: imageConfigOf(source.config),
    };
    try {
      const named = await this.#name(image, names);
      this.#options.log.info('image added', { image: image.id, bytes: size });
      return named;
    } catch (error) {
      this.#images.delete(image.id); // its record could not be written: after a restart it would not be there either
      await rm(path, { force: true });
      throw error;
    }
  }

  /** Gives names to an image, taking tags from others, and writes the index. */
  async #name(image: Image, names: Names): Promise<Image> {
    for (const other of this.#images.values()) {
      const kept = other.references.filter((reference) => !names.references.includes(reference));
      if (other.id !== image.id && kept.length !== other.references.length)
        this.#images.set(other.id, { ...other, references: kept });
    }
    const current = this.#images.get(image.id) ?? image;
    const named = {
      ...current,
      references: [...new Set([...current.references, ...names.references])],
      digests: [...new Set([...current.digests, ...names.digests])],
    };
    this.#images.set(image.id, named);
    await this.#write();
    return named;
  }

  #write(): Promise<void> {
    this.#writing = this.#writing
      .catch(() => undefined)
      .then(() => writeRecords(this.#options.directory, this.#images.values()));
    return this.#writing;
  }

  list(): readonly Image[] {
    const name = (image: Image) => image.references[0] ?? image.digests[0] ?? image.id;
    return [...this.#images.values()].sort((a, b) => (name(a) < name(b) ? -1 : 1));
  }

  get(reference: string): Image | undefined {
    const images = [...this.#images.values()];
    const byId = images.filter(
      (image) => /^[0-9a-f]{12,64}$/.test(reference) && image.id.startsWith(`sha256:${reference}`),
    );
    if (byId.length === 1) return byId[0];
    if (this.#images.has(reference)) return this.#images.get(reference);
    const parsed = parseReference(reference);
    const full = formatReference(parsed);
    return images.find((image) => image.references.includes(full) || image.digests.includes(full));
  }

  async hold(reference: string, policy: PullPolicy, signal: AbortSignal): Promise<HeldImage> {
    const isBase = formatReference(parseReference(reference)) === baseReference;
    let image = policy === 'Always' && !isBase ? undefined : this.get(reference);
    // Building it is no pull, so that no policy speaks against it: the examples run on a machine that has never pulled.
    if (isBase) image ??= await this.buildBase({}, signal);
    if (image === undefined && policy === 'Never') {
      throw new PodvmError('notFound', `Cannot use image ${reference}: it is not here, and imagePullPolicy is Never`, {
        fix: `Bring it with \`podvm image pull\` or \`podvm image load\`.`,
      });
    }
    image ??= await this.pull(reference, {}, signal);
    const { id, config } = image;
    this.#holds.set(id, (this.#holds.get(id) ?? 0) + 1);
    let isHeld = true;
    return {
      id,
      config,
      rootfsPath: rootfsPath(this.#options.directory, id),
      [Symbol.asyncDispose]: () => {
        if (isHeld) this.#holds.set(id, (this.#holds.get(id) ?? 1) - 1);
        isHeld = false;
        return Promise.resolve();
      },
    };
  }

  async remove(reference: string): Promise<Image> {
    const image = this.get(reference);
    if (image === undefined) {
      throw new PodvmError('notFound', `Cannot remove image ${reference}: it is not here`, {
        fix: 'See `podvm image ls`.',
      });
    }
    if ((this.#holds.get(image.id) ?? 0) > 0) {
      throw new PodvmError('busy', `Cannot remove image ${reference}: a pod uses it`, { fix: 'Stop the pod first.' });
    }
    this.#images.delete(image.id);
    await this.#write();
    await rm(rootfsPath(this.#options.directory, image.id), { force: true });
    return image;
  }

  async #inWorkDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
    const directory = await mkdtemp(join(this.#work, 'image-'));
    await chmod(directory, 0o711); // the jail's user passes through
    try {
      return await use(directory);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      throw new PodvmError('exhausted', 'Cannot add the image: the disk is full', {
        cause: error,
        fix: 'Free some space.',
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
}

/** The image of a layout that has only one. Errors: `corrupt`. */
async function onlyImageOf(what: string, layout: string): Promise<ImageSource> {
  const index = parseOci(what, await readDocument(what, join(layout, 'index.json')), indexSchema);
  const [only] = index.manifests;
  if (only === undefined)
    throw new PodvmError('corrupt', `Cannot use ${what}: there is no image in it`, { fix: brokenImageFix });
  return await readLayoutImage(what, (name) => join(layout, name), only);
}

const megabytes = (bytes: number) => Math.ceil(bytes / 1_000_000);

/** The work goes on for others who wait for it; this caller does not. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal, message: string): Promise<T> {
  if (signal.aborted) throw new PodvmError('cancelled', message, { cause: signal.reason });
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(new PodvmError('cancelled', message, { cause: signal.reason }));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
