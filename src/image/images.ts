import type { RegistryLogin } from './logins.ts';

/**
 * What the image layer offers. Words: an *image* is a config and its layers, known by the digest of the config (its
 * *id*); a *reference* is a name for it; a *rootfs* is all its layers in one read-only EROFS file.
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
  /** Absolute paths at which each container has a directory of its own to write to, with the image's content. */
  readonly volumes?: readonly string[];
}

export interface Image {
  /** Digest of the config: `sha256:...`. */
  readonly id: string;
  /** Full names with a tag: `docker.io/library/nginx:1.27`. */
  readonly references: readonly string[];
  /** Full names with the digest of a manifest, or of an index that led to it. */
  readonly digests: readonly string[];
  /** Of the EROFS file. */
  readonly sizeBytes: number;
  readonly createdAt: string;
  /** The n of x86-64-vN that it needs; absent: 1. */
  readonly processorLevel?: number;
  readonly config: ImageConfig;
  /** Absent: a podvm that took none has made the file. */
  readonly rootfs?: RootfsFacts;
  /** Why its file cannot be used, as the end of a sentence; absent: it can, as far as is known. */
  readonly damaged?: string;
}

/** By what a damaged EROFS file is noticed. */
export interface RootfsFacts {
  /** Of the whole file. */
  readonly digest: string;
  /** Of its first 4 KiB. */
  readonly head: string;
  readonly inode: string;
  readonly mtimeNs: string;
  /** When all of it was last read. */
  readonly checkedAt: string;
}

export interface LoadedImage extends Image {
  /** The names that loading gave it, of its `references`. */
  readonly names: readonly string[];
}

/** What became of a name that was taken away. */
export interface Untagged {
  /** Full names that are gone. */
  readonly untagged: readonly string[];
  /** Id of the image, when it went with its last name. */
  readonly removed?: string;
}

/** An image that cannot be removed while it is held. */
export interface HeldImage extends AsyncDisposable {
  readonly id: string;
  readonly config: ImageConfig;
  /** Absolute path of the EROFS file, root's and read-only. */
  readonly rootfsPath: string;
  /**
   * Reads all of the file, for what cannot be mounted or read. Why it is damaged, as the end of a sentence: the next
   * `hold` knows, too. Undefined: it is as it was written. Errors: `cancelled`.
   */
  findDamage(signal: AbortSignal): Promise<string | undefined>;
}

/** As Kubernetes' imagePullPolicy. */
export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface PullOptions {
  /** Plain HTTP, or any certificate. A registry on loopback gets this by itself. */
  readonly insecure?: boolean;
  /** Credentials, as docker's config.json; default: those of the node's configuration. */
  readonly authFile?: string;
  /** Those meant for the image are tried in turn, and after them the auth file. */
  readonly logins?: readonly RegistryLogin[];
  /** Told what is being done, a sentence at a time. */
  readonly onProgress?: (message: string) => void;
}

export interface ImageStore {
  /**
   * Fetches what the reference names now. Callers that ask for the same at one time share the work. Errors:
   * `invalid` (reference), `notFound`, `denied`, `unavailable`, `corrupt`, `unsupported`, `exhausted`, `cancelled`.
   */
  pull(reference: string, options: PullOptions, signal: AbortSignal): Promise<Image>;
  /**
   * Takes every image of a docker-archive, an OCI archive or a directory with an OCI layout; of images that are there for
   * several processors the one that fits.
   */
  load(
    path: string,
    name: string | undefined,
    options: PullOptions,
    signal: AbortSignal,
  ): Promise<readonly LoadedImage[]>;
  /** Makes the examples' image from a static busybox, without a registry. */
  buildBase(options: PullOptions, signal: AbortSignal): Promise<Image>;
  /** By name: `references` first, then digests and ids. */
  list(): readonly Image[];
  /** By reference, digest, id or the first 12 or more digits of the id. */
  get(reference: string): Image | undefined;
  /**
   * The image, present after this, and held. One that needs more than the processor has, which another accelerator had
   * when it came, is not here. One whose file is damaged is fetched again by its digest, where it came from a registry
   * and the policy is not `Never`. Errors: those of `pull`; `notFound` when the policy is `Never`; `corrupt` for a
   * damaged one.
   */
  hold(
    reference: string,
    policy: PullPolicy,
    signal: AbortSignal,
    options?: Pick<PullOptions, 'logins'>,
  ): Promise<HeldImage>;
  /** Reads all of an image's file, behind everything else. Errors: `notFound`, `cancelled`. */
  check(id: string, signal: AbortSignal): Promise<Image>;
  /** Gives an image that is here one more name, taking that from another. Errors: `notFound`, `invalid`. */
  tag(reference: string, name: string): Promise<Image>;
  /**
   * Takes a name from an image, and removes it with its last one; by id, with all of its names. A digest goes with the
   * last tag of its repository. Errors: `notFound`, `busy` for what would remove an image that is held.
   */
  untag(reference: string): Promise<Untagged>;
  /** Removes the image with all of its names. Errors: `notFound`, `busy` while it is held. */
  remove(reference: string): Promise<Image>;
}
