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
}

export interface Image {
  /** Digest of the config: `sha256:...`. */
  readonly id: string;
  /** Full names with a tag: `docker.io/library/nginx:1.27`. */
  readonly references: readonly string[];
  /** Full names with the digest of a manifest or an index. */
  readonly digests: readonly string[];
  /** Of the EROFS file. */
  readonly sizeBytes: number;
  readonly createdAt: string;
  readonly config: ImageConfig;
}

/** An image that cannot be removed while it is held. */
export interface HeldImage extends AsyncDisposable {
  readonly id: string;
  readonly config: ImageConfig;
  /** Absolute path of the EROFS file, root's and read-only. */
  readonly rootfsPath: string;
}

/** As Kubernetes' imagePullPolicy. */
export type PullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface PullOptions {
  /** Plain HTTP, or any certificate. A registry on loopback gets this by itself. */
  readonly insecure?: boolean;
  /** Credentials, as docker's config.json. */
  readonly authFile?: string;
  /** Told what is being done, a sentence at a time. */
  readonly onProgress?: (message: string) => void;
}

export interface ImageStore {
  /**
   * Fetches what the reference names now. Callers that ask for the same at one time share the work. Errors:
   * `invalid` (reference), `notFound`, `denied`, `unavailable`, `corrupt`, `unsupported`, `exhausted`, `cancelled`.
   */
  pull(reference: string, options: PullOptions, signal: AbortSignal): Promise<Image>;
  /** Takes every image of a docker-archive, an OCI archive or a directory with an OCI layout. */
  load(path: string, name: string | undefined, options: PullOptions, signal: AbortSignal): Promise<readonly Image[]>;
  /** Makes the examples' image from a static busybox, without a registry. */
  buildBase(options: PullOptions, signal: AbortSignal): Promise<Image>;
  /** By name: `references` first, then digests and ids. */
  list(): readonly Image[];
  /** By reference, digest, id or the first 12 or more digits of the id. */
  get(reference: string): Image | undefined;
  /** The image, present after this, and held. Errors: those of `pull`; `notFound` when the policy is `Never`. */
  hold(reference: string, policy: PullPolicy, signal: AbortSignal): Promise<HeldImage>;
  /** Errors: `notFound`, `busy` while it is held. */
  remove(reference: string): Promise<Image>;
}
