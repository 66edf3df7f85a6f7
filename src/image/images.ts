import type { ImageCounts } from './image-counts.ts';
import type { RegistryLogin } from './logins.ts';

/**
 * The interface of the image layer. Words: an *image* is a config and its layers, identified by the digest of the config
 * (its *id*); a *reference* is a name for it; a *rootfs* is all its layers in one read-only EROFS file system, whose bytes are
 * those of the image's own file and behind it those of its *shared layers*: files with the content of large layers, which
 * images have in common.
 */
export interface ImageConfig {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  /** `NAME=value`. */
  readonly env?: readonly string[];
  readonly workingDir?: string;
  /** `uid`, `uid:gid`, `name` or `name:group`. */
  readonly user?: string;
  readonly stopSignal?: string;
  /** Absolute paths at which each container gets its own writable directory with the image's content. */
  readonly volumes?: readonly string[];
}

export interface Image {
  /** Digest of the config: `sha256:...`. */
  readonly id: string;
  /** Full names with a tag: `docker.io/library/nginx:1.27`. */
  readonly references: readonly string[];
  /** Full names with the digest of a manifest, or of an index that leads to it. */
  readonly digests: readonly string[];
  /** Size of the EROFS file system. */
  readonly sizeBytes: number;
  /** Shared layers in the order of their bytes; absent: it has none. */
  readonly layers?: readonly SharedLayer[];
  readonly createdAt: string;
  /** The n of the x86-64-vN that it needs; absent: 1. */
  readonly processorLevel?: number;
  readonly config: ImageConfig;
  /** Absent if the file was made by a podvm that did not record facts. */
  readonly rootfs?: RootfsFacts;
  /** Reason why its file cannot be used, as the end of a sentence; absent if no damage is known. */
  readonly damaged?: string;
}

/** Facts by which a file that was written to or replaced is detected. */
export interface FileFacts {
  readonly inode: string;
  readonly mtimeNs: string;
}

/** Facts by which damage to an image's own file is detected. */
export interface RootfsFacts extends FileFacts {
  /** Digest of the whole file. */
  readonly digest: string;
  /** Digest of its first 4 KiB. */
  readonly head: string;
  /** Time at which all files of the image were last read. */
  readonly checkedAt: string;
}

/** The content of a layer, in a file that several images may use. */
export interface SharedLayer extends FileFacts {
  /** Digest of the file, which is not that of the layer. */
  readonly digest: string;
  readonly sizeBytes: number;
  /**
   * For pulls: digests of the list of its members and of the uncompressed layer, and the full name of the blob, with the
   * repository that it came from; absent: it was not pulled.
   */
  readonly source?: { readonly members: string; readonly diffId: string; readonly blob: string };
}

export interface LoadedImage extends Image {
  /** Names from the load, a part of its `references`. */
  readonly names: readonly string[];
}

/** The result of removing a name. */
export interface Untagged {
  /** Full names that were removed. */
  readonly untagged: readonly string[];
  /** Id of the image, if it was removed with its last name. */
  readonly removed?: string;
}

/** An image that cannot be removed while it is held. */
export interface HeldImage extends AsyncDisposable {
  readonly id: string;
  readonly config: ImageConfig;
  /** Absolute path of the image's own file, owned by root and read-only. */
  readonly rootfsPath: string;
  /** Those of its shared layers, in the order of their bytes. */
  readonly layerPaths: readonly string[];
  /**
   * Reads all its files after it could not be mounted or read. Returns the reason why it is damaged, as the end of a
   * sentence, and records it for the next `hold`; undefined when they are intact. Errors: `cancelled`.
   */
  findDamage(signal: AbortSignal): Promise<string | undefined>;
}

/** Same as Kubernetes' imagePullPolicy. */
export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface PullOptions {
  /** Allows plain HTTP and any certificate. Always on for registries on loopback. */
  readonly insecure?: boolean;
  /** Credentials, in the format of docker's config.json; default: those of the node's configuration. */
  readonly authFile?: string;
  /** Logins that match the image are tried in turn, and after them the auth file. */
  readonly logins?: readonly RegistryLogin[];
  /** Called with each step, as a sentence. */
  readonly onProgress?: (message: string) => void;
}

export interface ImageStore {
  /**
   * Fetches the image that the reference currently names. Concurrent calls for the same image share the work. Errors:
   * `invalid` (reference), `notFound`, `denied`, `unavailable`, `corrupt`, `unsupported`, `exhausted`, `cancelled`.
   */
  pull(reference: string, options: PullOptions, signal: AbortSignal): Promise<Image>;
  /**
   * Loads every image of a docker-archive, an OCI archive or a directory with an OCI layout; of an image for several
   * processors, the variant that fits.
   */
  load(
    path: string,
    name: string | undefined,
    options: PullOptions,
    signal: AbortSignal,
  ): Promise<readonly LoadedImage[]>;
  /** Makes the examples' image from a static busybox, without a registry. */
  buildBase(options: PullOptions, signal: AbortSignal): Promise<Image>;
  readonly counts: ImageCounts;
  /** Returns all images sorted by name: `references` first, then digests and ids. */
  list(): readonly Image[];
  /** Finds an image by reference, digest, id, or the first 12 or more digits of the id. */
  get(reference: string): Image | undefined;
  /**
   * Holds the image, fetching it if needed. An image that needs a higher level than the processor has (it was fetched
   * under another accelerator) counts as missing. A damaged one is fetched again by its digest, if it came from a
   * registry and the policy is not `Never`. Errors: those of `pull`; `notFound` when the policy is `Never`; `corrupt`
   * when a damaged image cannot be fetched again.
   */
  hold(
    reference: string,
    policy: PullPolicy,
    signal: AbortSignal,
    options?: Pick<PullOptions, 'logins'>,
  ): Promise<HeldImage>;
  /** Reads all files of an image, at idle priority. Errors: `notFound`, `cancelled`. */
  check(id: string, signal: AbortSignal): Promise<Image>;
  /** Gives a present image another name, taking it from any other image. Errors: `notFound`, `invalid`. */
  tag(reference: string, name: string): Promise<Image>;
  /**
   * Removes a name from an image, and the image with its last name; given an id, removes all names. Removing the last
   * tag of a repository also removes the repository's digests. Errors: `notFound`, `busy` when it would remove an image
   * that is held.
   */
  untag(reference: string): Promise<Untagged>;
  /** Removes the image with all of its names. Errors: `notFound`, `busy` while it is held. */
  remove(reference: string): Promise<Image>;
}
