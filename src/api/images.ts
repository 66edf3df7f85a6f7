import * as v from 'valibot';
import { errorBodySchema } from './pods.ts';
import { registryLoginsSchema } from './registry-logins.ts';

/**
 *   GET    /v1/images                 ImageSummary[]
 *   POST   /v1/images/pull            PullRequest -> ImageProgress lines (NDJSON), the last with `done` or `error`
 *   POST   /v1/images/load            LoadRequest -> ImageProgress lines
 *   POST   /v1/images/build-base      ImageProgress lines
 *   POST   /v1/images/tag             TagRequest -> ImageSummary
 *   POST   /v1/images/prune           PruneRequest -> ImageSummary[], those that were removed
 *   GET    /v1/images/inspect?reference=   ImageDetails
 *   GET    /v1/images/pulling          PullInProgress[]
 *   DELETE /v1/images?reference=      Untagged: the name, and the image with its last name or when named by its id
 */
export const imageSummarySchema = v.object({
  id: v.string(),
  references: v.array(v.string()),
  digests: v.array(v.string()),
  sizeBytes: v.number(),
  createdAt: v.optional(v.string()),
  /** Reason why its file cannot be used, as the end of a sentence; absent if it can. */
  damaged: v.optional(v.string()),
});
export type ImageSummary = v.InferOutput<typeof imageSummarySchema>;

/** All details of an image. */
export const imageDetailsSchema = v.object({
  ...imageSummarySchema.entries,
  /** Its config: `cmd`, `env`, `user` and so on. */
  config: v.record(v.string(), v.unknown()),
});
export type ImageDetails = v.InferOutput<typeof imageDetailsSchema>;

export const untaggedSchema = v.object({
  /** Names that were removed. */
  untagged: v.array(v.string()),
  /** Id of the image, if it was removed too. */
  removed: v.optional(v.string()),
});
export type UntaggedAnswer = v.InferOutput<typeof untaggedSchema>;

const reference = v.pipe(v.string(), v.minLength(1), v.maxLength(1024));
const absolutePath = v.pipe(v.string(), v.startsWith('/'), v.maxLength(4096));

export const pullRequestSchema = v.strictObject({
  reference,
  /** Allows plain HTTP and any certificate for this registry. */
  insecure: v.optional(v.boolean(), false),
  logins: v.optional(registryLoginsSchema, []),
});
export type PullRequestInput = v.InferInput<typeof pullRequestSchema>;

export const loadRequestSchema = v.strictObject({
  /** A docker-archive or OCI archive file, or a directory with an OCI layout. */
  path: absolutePath,
  /** Name for an image without one in the archive. */
  reference: v.optional(reference),
});
export type LoadRequestInput = v.InferInput<typeof loadRequestSchema>;

export const tagRequestSchema = v.strictObject({ reference, name: reference });
export type TagRequestInput = v.InferInput<typeof tagRequestSchema>;

export const pruneRequestSchema = v.strictObject({
  /** Also images with a tag that nothing uses; default: only those without one. */
  all: v.optional(v.boolean(), false),
});
export type PruneRequestInput = v.InferInput<typeof pruneRequestSchema>;

/** A pull that goes on. */
export const pullInProgressSchema = v.object({
  /** Full name of the image. */
  reference: v.string(),
  /** Absent until the registry has answered. */
  doing: v.optional(v.string()),
});
export type PullInProgress = v.InferOutput<typeof pullInProgressSchema>;

export const imageProgressSchema = v.object({
  message: v.optional(v.string()),
  /** The images, each with the names that were requested or assigned. */
  done: v.optional(v.array(v.object({ ...imageSummarySchema.entries, names: v.array(v.string()) }))),
  error: v.optional(errorBodySchema),
});
export type ImageProgress = v.InferOutput<typeof imageProgressSchema>;
