import { PodvmError } from '#base/errors.ts';
import { printable } from '#base/guest-text.ts';
import type { ImageLimits } from '../limits.ts';
import {
  checkDigest,
  type Descriptor,
  digestOf,
  isImageConfig,
  type Manifest,
  mayBeImage,
  type OciPlatform,
  parseDocument,
  parseOci,
  platformSchema,
} from '../oci.ts';
import { bestFirst, describePlatform, describeProcessor, levelOf, type Processor } from './platform.ts';

/** The source of an image's documents: a registry, an archive or a layout. Their digests are checked here. */
export interface Documents {
  /** Text of the manifest or index that has this digest. */
  manifest(digest: string): Promise<string>;
  /** Text of the config that this manifest names. */
  config(manifestDigest: string, configDigest: string): Promise<string>;
}

export interface ChoiceRequest {
  /** The image, for messages. */
  readonly what: string;
  readonly documents: Documents;
  readonly processor: Processor;
  readonly limits: ImageLimits;
}

export interface ChosenImage {
  readonly manifest: Manifest;
  /** Digests of every index that led to the image, outermost first, and then its own. */
  readonly digests: readonly string[];
  /** The processor level that it needs, by its entry or its config; see `Processor`. */
  readonly level: number;
}

/**
 * Chooses the image that a document stands for: itself, if it is a manifest, or the entry of an index for this
 * processor. Errors: `unsupported` (nothing fits, an artifact), `corrupt`, `exhausted` (more indexes than the limits
 * allow).
 */
export async function chooseImage(text: string, request: ChoiceRequest): Promise<ChosenImage> {
  const { what } = request;
  const digest = digestOf(text);
  const document = parseDocument(what, text);
  switch (document.kind) {
    case 'index': {
      const chosen = await new Search(request).start(document.entries, 1);
      return { ...chosen, digests: [digest, ...chosen.digests] };
    }
    case 'manifest': {
      const { manifest } = document;
      if (isImageConfig(manifest.config)) return { manifest, digests: [digest], level: 1 };
      const type = printable(manifest.config.mediaType, maxQuotedChars);
      throw noImage(what, `it is an artifact of type ${type}, not an image`);
    }
    case 'other':
      throw noImage(what, 'its document is neither an image nor an index of images');
  }
}

/** Chooses the image among descriptors side by side, as in the `index.json` of a layout. */
export async function chooseAmong(entries: readonly Descriptor[], request: ChoiceRequest): Promise<ChosenImage> {
  return await new Search(request).start(entries, 0);
}

const maxQuotedChars = 100;
const maxOffered = 12;

/**
 * Searches nested indexes. Entries that name a fitting platform come first, best first; then those that name none,
 * whose configs are all read for the best one. When an entry does not lead to an image, as with an index that has only
 * attestations, the next one is tried.
 */
class Search {
  readonly #request: ChoiceRequest;
  readonly #offered = new Set<string>();
  readonly #done = new Map<string, ChosenImage | undefined>();
  #documents = 0;
  #bytes = 0;

  constructor(request: ChoiceRequest) {
    this.#request = request;
  }

  async start(entries: readonly Descriptor[], depth: number): Promise<ChosenImage> {
    const found = await this.#among(entries, depth);
    if (found !== undefined) return found;
    const { what, processor } = this.#request;
    const offered = [...this.#offered].slice(0, maxOffered);
    if (this.#offered.size > maxOffered) offered.push('and others');
    throw new PodvmError(
      'unsupported',
      `Cannot use ${what}: it has no ${describeProcessor(processor)} image, only ${offered.join(', ') || 'none'}`,
      { fix: 'Use an image built for this machine.' },
    );
  }

  async #among(entries: readonly Descriptor[], depth: number): Promise<ChosenImage | undefined> {
    const { processor } = this.#request;
    const images = entries.filter(mayBeImage);
    for (const { platform } of images) if (platform !== undefined) this.#offer(platform);
    for (const { one, level } of bestFirst(images, ({ platform }) => platform, processor)) {
      const found = await this.#follow(one, level, depth);
      if (found !== undefined) return found;
    }
    let best: ChosenImage | undefined;
    const silent = images.filter(({ platform }) => platform === undefined);
    this.#expect(new Set(silent.map(({ digest }) => digest)).size);
    for (const entry of silent) {
      const found = await this.#follow(entry, undefined, depth);
      if (found !== undefined && found.level > (best?.level ?? 0)) best = found;
      if (best?.level === processor.level) break;
    }
    return best;
  }

  /**
   * Returns the image that an entry leads to, if it fits. `level`: level of the entry's platform; undefined if it names
   * none.
   */
  async #follow(entry: Descriptor, level: number | undefined, depth: number): Promise<ChosenImage | undefined> {
    const key = `${entry.digest} ${level ?? ''}`;
    if (this.#done.has(key)) return this.#done.get(key);
    this.#done.set(key, undefined);
    const found = await this.#open(entry, level, depth);
    this.#done.set(key, found);
    return found;
  }

  async #open({ digest }: Descriptor, level: number | undefined, depth: number): Promise<ChosenImage | undefined> {
    const { what, documents, limits, processor } = this.#request;
    const text = await this.#read(digest, () => documents.manifest(digest));
    const document = parseDocument(what, text);
    if (document.kind === 'index') {
      if (depth >= limits.maxIndexDepth) {
        throw this.#tooMuch(`its indexes are nested more than ${limits.maxIndexDepth} deep`);
      }
      const found = await this.#among(document.entries, depth + 1);
      return found === undefined ? undefined : { ...found, digests: [digest, ...found.digests] };
    }
    if (document.kind !== 'manifest' || !isImageConfig(document.manifest.config)) return undefined;
    const { manifest } = document;
    if (level !== undefined) return { manifest, digests: [digest], level };
    const { config } = manifest;
    const said = await this.#read(config.digest, () => documents.config(digest, config.digest));
    const platform = parseOci(what, said, platformSchema);
    this.#offer(platform);
    const fits = levelOf(platform, processor);
    return fits === undefined ? undefined : { manifest, digests: [digest], level: fits };
  }

  /** Refuses at once when not all documents could be read. */
  #expect(documents: number): void {
    const { maxIndexDocuments } = this.#request.limits;
    if (this.#documents + documents <= maxIndexDocuments) return;
    throw this.#tooMuch(`more than ${maxIndexDocuments} documents would have to be read to choose from it`);
  }

  async #read(digest: string, read: () => Promise<string>): Promise<string> {
    const { what, limits } = this.#request;
    this.#expect(1);
    this.#documents += 1;
    const text = checkDigest(what, await read(), digest);
    this.#bytes += Buffer.byteLength(text);
    if (this.#bytes > limits.maxIndexBytes) {
      throw this.#tooMuch(`its indexes and manifests have more than ${limits.maxIndexBytes} bytes`);
    }
    return text;
  }

  #offer(platform: OciPlatform): void {
    if (this.#offered.size <= maxOffered) this.#offered.add(printable(describePlatform(platform), maxQuotedChars));
  }

  #tooMuch(reason: string): PodvmError {
    return new PodvmError('exhausted', `Cannot use ${this.#request.what}: ${reason}`, {
      fix: 'Give the digest of the image itself: NAME@sha256:...',
    });
  }
}

function noImage(what: string, reason: string): PodvmError {
  return new PodvmError('unsupported', `Cannot use ${what}: ${reason}`, {
    fix: 'Name an OCI image or a Docker image (manifest schema 2).',
  });
}
