import { chmod, mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { kindOf, messageOf, PodvmError } from '#base/errors.ts';
import type { Log } from '#host/log/log.ts';
import { traced } from '#host/log/tracing.ts';
import { readArchive } from '../source/archive.ts';
import { baseReference, makeBaseLayout } from '../source/base-image.ts';
import { StoredLayerFault } from '../import/layer-fault.ts';
import { flatten, type FlattenedImage, type StoredLayers } from '../flatten.ts';
import { CountedImages } from '../image-counts.ts';
import type {
  HeldImage,
  Image,
  ImageStore,
  LoadedImage,
  PullOptions,
  PullPolicy,
  SharedLayer,
  Untagged,
} from '../images.ts';
import { ImageHealth } from './image-health.ts';
import {
  imageConfigOf,
  layersDirectory,
  membersDirectory,
  pathsOf,
  readRecords,
  rootfsDirectory,
  rootfsPath,
  writeRecords,
} from './image-record.ts';
import { mendImage } from './mend-image.ts';
import { recordsDirectory } from './own-records.ts';
import { KnownDocuments } from '../source/known-documents.ts';
import { type ImageDescription, type ImageSource, type Reader, readOwnLayout } from '../source/layout.ts';
import { authEntry, loginsFor, type RegistryLogin } from '../logins.ts';
import { type ImageLimits, imageLimits } from '../limits.ts';
import { pullLayers } from '../pull-layers.ts';
import { loadNames } from '../source/archive-names.ts';
import { findImage, type FoundImage, hasNames, type Names, withNames, withoutName } from '../names.ts';
import { type Manifest, ociArchitecture } from '../oci.ts';
import { describeProcessor, type Processor } from '../source/platform.ts';
import {
  formatReference,
  isImageId,
  isLoopback,
  nameOf,
  parseReference,
  type Reference,
} from '#base/image-reference.ts';
import { resolveImage } from '../source/resolve-image.ts';
import { factsOf } from './rootfs-file.ts';
import { SharedLayers } from './shared-layers.ts';
import { SharedWork } from '../shared-work.ts';
import { type Access, Skopeo } from '../source/skopeo.ts';

export interface ImageStoreOptions {
  /** State of images, used by one process at a time (guaranteed by the sandboxes' lock). */
  readonly directory: string;
  readonly sysroot: string;
  readonly log: Log;
  /** The processor that containers see; default: the baseline of this architecture. */
  readonly processor?: Processor;
  /** Default: `imageLimits`. */
  readonly limits?: ImageLimits;
  /** registries.conf, certs.d and policy.json for pulls; default: `/etc/containers`. */
  readonly containersDirectory?: string;
  /** Credentials for pulls without their own; default: none. */
  readonly authFile?: string;
  /** Time for which a registry may make no progress, in `ms`; default 60,000. */
  readonly answerTimeoutMs?: number;
}

/** Opens the store and removes the unfinished files of a killed process. Errors: `corrupt`. */
export async function openImageStore(options: ImageStoreOptions): Promise<ImageStore> {
  const work = join(options.directory, 'work');
  await mkdir(options.directory, { recursive: true, mode: 0o711 });
  // The files are readable by every VMM's user; the closed directory keeps out others: VMMs use links in their own.
  for (const closed of [rootfsDirectory, layersDirectory, membersDirectory, recordsDirectory].map((of) =>
    of(options.directory),
  )) {
    await mkdir(closed, { recursive: true });
    await chmod(closed, 0o700); // earlier versions left it open
  }
  await mkdir(work, { recursive: true, mode: 0o711 });
  for (const left of await readdir(work)) await rm(join(work, left), { recursive: true, force: true });
  return new DiskImageStore(options, work, await readRecords(options.directory, options.log));
}

class DiskImageStore implements ImageStore {
  readonly #options: ImageStoreOptions;
  readonly #work: string;
  readonly #reader: Reader;
  readonly #images: Map<string, Image>;
  readonly #health: ImageHealth;
  readonly #layers: SharedLayers;
  readonly counts = new CountedImages();
  readonly #holds = new Map<string, number>();
  readonly #pulls = new SharedWork<Image>();
  readonly #documents = new KnownDocuments();
  #writing: Promise<void> = Promise.resolve();

  constructor(options: ImageStoreOptions, work: string, images: Map<string, Image>) {
    this.#options = options;
    this.#work = work;
    const { processor = { architecture: ociArchitecture(), level: 1 }, limits = imageLimits } = options;
    this.#reader = { processor, limits };
    this.#images = images;
    const { directory, log } = options;
    this.#layers = new SharedLayers(directory, images);
    this.#health = new ImageHealth({ directory, images, log, write: () => this.#write() });
  }

  async pull(reference: string, options: PullOptions, signal: AbortSignal): Promise<Image> {
    const parsed = parseReference(reference);
    const authFile = options.authFile ?? this.#options.authFile;
    const access: Access = {
      insecure: options.insecure ?? isLoopback(parsed),
      containersDirectory: this.#options.containersDirectory ?? '/etc/containers',
      answerTimeoutMs: this.#options.answerTimeoutMs ?? 60_000,
      ...(authFile === undefined ? {} : { authFile }),
    };
    for (const login of loginsFor(parsed, options.logins ?? [])) {
      const image = await this.#pullWith(parsed, { ...access, auths: authsOf(parsed, login) }, options, signal).catch(
        (error: unknown) => {
          if (kindOf(error) !== 'denied') throw error; // another login may be accepted
        },
      );
      if (image !== undefined) return image;
    }
    return await this.#pullWith(parsed, access, options, signal);
  }

  async #pullWith(parsed: Reference, access: Access, options: PullOptions, signal: AbortSignal): Promise<Image> {
    return await this.#pulls.run(
      `pull ${formatReference(parsed)}`,
      JSON.stringify([formatReference(parsed), access]),
      (onProgress, abort) =>
        this.counts.pull(formatReference(parsed), (note) => {
          const tell = (message: string) => {
            note(message);
            onProgress(message);
          };
          return traced({ name: 'pull image', attributes: { image: formatReference(parsed) } }, () =>
            this.#fetch(parsed, access, { onProgress: tell }, abort),
          );
        }),
      signal,
      options,
    );
  }

  async #fetch(
    reference: Reference,
    access: Access,
    options: PullOptions,
    signal: AbortSignal,
    usesStored = true,
  ): Promise<Image> {
    const fetching = this.#inWorkDirectory(async (directory) => {
      const full = formatReference(reference);
      const skopeo = await Skopeo.open(reference, directory, access);
      const resolved = await traced({ name: 'manifest read' }, () =>
        resolveImage(reference, skopeo, { ...this.#reader, known: this.#documents }, signal),
      );
      const { manifest, names } = resolved;
      const known = await this.#sound(manifest.config.digest, signal);
      if (known !== undefined && this.#fits(known)) return await this.#name(known, names);

      const repository = nameOf(reference);
      const stored = usesStored ? await this.#stored(repository, manifest, directory, signal) : new Map<never, never>();
      const pulling = { reader: this.#reader, directory, repository, stored, onProgress: options.onProgress };
      const { image, flattened } = await pullLayers(full, resolved, skopeo, pulling, signal);
      return await this.#add(image, flattened, names, signal);
    });
    return await fetching.catch(async (error: unknown) => {
      if (!usesStored || !(error instanceof StoredLayerFault)) throw error; // a hostile reader may say so of any layer
      this.#options.log.warn('a stored layer is no use, all layers are fetched', { why: messageOf(error) });
      return await this.#fetch(reference, access, options, signal, false);
    });
  }

  /** Finds the layers that earlier pulls from the repository have left; none to mend an image, whose layers may be damaged. */
  async #stored(
    repository: string,
    { config, layers }: Manifest,
    directory: string,
    signal: AbortSignal,
  ): Promise<StoredLayers> {
    if (this.#images.has(config.digest)) return new Map();
    const blobs = layers.map(({ digest }) => digest);
    return await this.#layers.find(repository, blobs, directory, signal);
  }

  async load(
    path: string,
    name: string | undefined,
    options: PullOptions,
    signal: AbortSignal,
  ): Promise<readonly LoadedImage[]> {
    return await this.#inWorkDirectory(async (work) => {
      options.onProgress?.(`reading ${path}`);
      const archived = await readArchive(path, { work, signal, ...this.#reader });
      const images: LoadedImage[] = [];
      for (const { source, references } of loadNames(path, archived, name)) {
        images.push({ ...(await this.#take(source, { references, digests: [] }, options, signal)), names: references });
      }
      return images;
    });
  }

  async buildBase(options: PullOptions, signal: AbortSignal): Promise<Image> {
    return await this.#inWorkDirectory(async (directory) => {
      const layout = await makeBaseLayout(this.#options.sysroot, directory, signal);
      const source = await readOwnLayout(baseReference, layout, this.#reader);
      return await this.#take(source, { references: [baseReference], digests: [] }, options, signal);
    });
  }

  async #take(source: ImageSource, names: Names, options: PullOptions, signal: AbortSignal): Promise<Image> {
    const known = await this.#sound(source.id, signal);
    if (known !== undefined) return await this.#name(known, names);
    return await this.#inWorkDirectory(async (directory) => {
      options.onProgress?.(`flattening ${names.references[0] ?? source.id}`);
      const made = await traced({ name: 'layers flattened' }, () =>
        flatten(source.layers, { directory, signal, limits: this.#reader.limits }),
      );
      return await this.#add(source, made, names, signal);
    });
  }

  /** Publishes an image, unless another call has done so meanwhile. */
  async #add(source: ImageDescription, made: FlattenedImage, names: Names, signal: AbortSignal): Promise<Image> {
    const known = await this.#sound(source.id, signal);
    if (known !== undefined) return await this.#name(known, names);
    let before = this.#images.get(source.id);
    const record = async (layers: readonly SharedLayer[]) => {
      const current = this.#images.get(source.id);
      // Another call was first while this one waited: its layers need not be the same.
      const added = current === before ? undefined : await this.#sound(source.id, signal);
      if (added !== undefined) return await this.#name(added, names);
      before = this.#images.get(source.id);
      return await this.#record(source, made, layers, names);
    };
    const image = await this.#layers.add(made.layers, record, signal);
    if (before !== undefined) await this.#layers.removeOf(before);
    return image;
  }

  async #record(
    source: ImageDescription,
    made: FlattenedImage,
    layers: readonly SharedLayer[],
    names: Names,
  ): Promise<Image> {
    const path = rootfsPath(this.#options.directory, source.id);
    const { size } = await stat(made.path);
    const rootfs = await factsOf(made.path, made.digest, Date.now());
    await rename(made.path, path);
    const before = this.#images.get(source.id); // a damaged image keeps its names
    const image: Image = {
      id: source.id,
      references: before?.references ?? [],
      digests: before?.digests ?? [],
      sizeBytes: layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, size),
      ...(layers.length === 0 ? {} : { layers }),
      rootfs,
      createdAt: new Date().toISOString(),
      ...(source.level > 1 ? { processorLevel: source.level } : {}),
      config: imageConfigOf(source.config),
    };
    try {
      this.#images.set(image.id, image);
      const named = await this.#putNamed(image, names);
      this.counts.imports += 1;
      this.#options.log.info('image added', { image: image.id, bytes: image.sizeBytes });
      return named;
    } catch (error) {
      // Its record could not be written: a restart would not find it either, or find it damaged as before.
      if (before !== undefined) this.#images.set(before.id, before);
      else {
        this.#images.delete(image.id);
        await rm(path, { force: true });
      }
      throw error;
    }
  }

  /** Gives names to an image, taking them from other images, and writes the index, unless it has them. */
  async #name(image: Image, names: Names): Promise<Image> {
    const current = this.#images.get(image.id);
    if (current === undefined || !hasNames(current, names)) return await this.#putNamed(image, names);
    await this.#writing.catch(() => undefined); // what it has is then on the disk, unless that failed
    const written = this.#images.get(image.id) ?? current; // it may have been removed since
    return hasNames(written, names) ? written : await this.#putNamed(image, names);
  }

  async #putNamed(image: Image, names: Names): Promise<Image> {
    await this.#put(withNames(this.#images, this.#images.get(image.id) ?? image, names));
    return this.#images.get(image.id) ?? image;
  }

  /** Changes records and writes the index; restores records that cannot be written. */
  async #put(changed: readonly Image[]): Promise<void> {
    const before = changed.map(({ id }) => this.#images.get(id));
    for (const one of changed) this.#images.set(one.id, one);
    try {
      await this.#write();
    } catch (error) {
      for (const [at, one] of changed.entries()) {
        const old = before[at];
        if (this.#images.get(one.id) !== one) continue; // changed again since
        if (old === undefined) this.#images.delete(one.id);
        else this.#images.set(one.id, old);
      }
      throw error;
    }
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
    return findImage(this.#images, reference)?.image;
  }

  async tag(reference: string, name: string): Promise<Image> {
    const parsed = parseReference(name);
    if (parsed.digest !== undefined) {
      throw new PodvmError('invalid', `Cannot give an image the name ${name}: a digest is not a tag`, {
        fix: 'Give a name with a tag, such as app:1.',
      });
    }
    const { image } = this.#find('tag', reference);
    return await this.#name(image, { references: [formatReference(parsed)], digests: [] });
  }

  async hold(
    reference: string,
    policy: PullPolicy,
    signal: AbortSignal,
    options: Pick<PullOptions, 'logins'> = {},
  ): Promise<HeldImage> {
    const isBase = !isImageId(reference) && formatReference(parseReference(reference)) === baseReference;
    const found = policy === 'Always' && !isBase ? undefined : this.get(reference);
    let image = found !== undefined && this.#fits(found) ? found : undefined;
    // Building the base image is not a pull, so no policy forbids it: the examples run on a machine that has never pulled.
    if (isBase) image ??= await this.buildBase({}, signal);
    if (image === undefined && policy === 'Never') {
      const reason =
        found === undefined ? 'it is not here' : `it is not for ${describeProcessor(this.#reader.processor)}`;
      throw new PodvmError('notFound', `Cannot use image ${reference}: ${reason}, and imagePullPolicy is Never`, {
        fix: `Get it with \`podvm image pull\` or \`podvm image load\`, or use another imagePullPolicy.`,
      });
    }
    if (image !== undefined && (await this.#sound(image.id, signal)) === undefined)
      image = await this.#mend(reference, image.id, policy, options, signal);
    image ??= await this.pull(reference, options, signal);
    const current = this.#images.get(image.id); // it may have been made again meanwhile, with other layers
    if (current === undefined) return await this.hold(reference, policy, signal, options); // it has been removed since
    const { id, config } = current;
    const { rootfs, layers } = pathsOf(this.#options.directory, current);
    this.#holds.set(id, (this.#holds.get(id) ?? 0) + 1);
    let isHeld = true;
    return {
      id,
      config,
      rootfsPath: rootfs,
      layerPaths: layers,
      findDamage: async (checking) => (await this.#health.check(id, 'read', checking))?.damaged,
      [Symbol.asyncDispose]: () => {
        if (isHeld) this.#holds.set(id, (this.#holds.get(id) ?? 1) - 1);
        isHeld = false;
        return Promise.resolve();
      },
    };
  }

  #fits({ processorLevel = 1 }: Image): boolean {
    return processorLevel <= this.#reader.processor.level;
  }

  /** Returns the image if it is present and a quick look finds its file intact. */
  async #sound(id: string, signal: AbortSignal): Promise<Image | undefined> {
    const image = await this.#health.check(id, 'look', signal);
    return image?.damaged === undefined ? image : undefined;
  }

  /** Makes the file of a damaged image again, from its source. Errors: `corrupt`, those of `pull`. */
  async #mend(
    reference: string,
    id: string,
    policy: PullPolicy,
    options: PullOptions,
    signal: AbortSignal,
  ): Promise<Image> {
    const image = this.#images.get(id);
    if (image === undefined) return await this.pull(reference, options, signal); // it has been removed since
    if (image.references.includes(baseReference)) return await this.buildBase({}, signal);
    return await mendImage(reference, image, policy, async (name) => await this.pull(name, options, signal));
  }

  async check(id: string, signal: AbortSignal): Promise<Image> {
    const image = await this.#health.check(id, 'idle', signal);
    if (image !== undefined) return image;
    throw new PodvmError('notFound', `Cannot check image ${id}: it is not here`, { fix: 'See `podvm image ls`.' });
  }

  async remove(reference: string): Promise<Image> {
    const { image } = this.#find('remove', reference);
    await this.#remove(image, reference);
    return image;
  }

  async untag(reference: string): Promise<Untagged> {
    const { image, by } = this.#find('remove', reference);
    const all = [...image.references, ...image.digests];
    const { image: left, untagged } = by === 'id' ? { image, untagged: all } : withoutName(image, reference);
    if (untagged.length === all.length) {
      await this.#remove(image, reference);
      return { untagged, removed: image.id };
    }
    await this.#put([left]);
    return { untagged };
  }

  #find(verb: string, reference: string): FoundImage {
    const found = findImage(this.#images, reference);
    if (found !== undefined) return found;
    throw new PodvmError('notFound', `Cannot ${verb} image ${reference}: it is not here`, {
      fix: 'See `podvm image ls`.',
    });
  }

  async #remove(image: Image, reference: string): Promise<void> {
    if ((this.#holds.get(image.id) ?? 0) > 0) {
      throw new PodvmError('busy', `Cannot remove image ${reference}: a pod uses it`, { fix: 'Stop the pod first.' });
    }
    this.#images.delete(image.id);
    await this.#write();
    await rm(rootfsPath(this.#options.directory, image.id), { force: true });
    await this.#layers.removeOf(image);
  }

  async #inWorkDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
    const directory = await mkdtemp(join(this.#work, 'image-'));
    await chmod(directory, 0o711); // lets the jail's user pass through
    try {
      return await use(directory);
    } catch (error) {
      if (!['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      throw new PodvmError('exhausted', 'Cannot add the image: the disk is full', {
        cause: error,
        fix: 'Free some space or remove images with `podvm image rm`.',
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
}

function authsOf({ registry }: Reference, login: RegistryLogin): string {
  return JSON.stringify({ auths: { [registry]: authEntry(login) } });
}
