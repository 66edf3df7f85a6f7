import * as v from 'valibot';
import { errorBodySchema } from './pods.ts';

/**
 *   GET    /v1/images                 ImageSummary[]
 *   POST   /v1/images/pull            PullRequest -> ImageProgress lines (NDJSON), the last with `done` or `error`
 *   POST   /v1/images/load            LoadRequest -> ImageProgress lines
 *   POST   /v1/images/build-base      ImageProgress lines
 *   DELETE /v1/images?reference=      ImageSummary
 */
export const imageSummarySchema = v.object({
  id: v.string(),
  references: v.array(v.string()),
  digests: v.array(v.string()),
  sizeBytes: v.number(),
  createdAt: v.optional(v.string()),
});
export type ImageSummary = v.InferOutput<typeof imageSummarySchema>;

const reference = v.pipe(v.string(), v.minLength(1), v.maxLength(1024));
const absolutePath = v.pipe(v.string(), v.startsWith('/'), v.maxLength(4096));

export const pullRequestSchema = v.strictObject({
  reference,
  /** Talk plain HTTP or accept any certificate for this registry. */
  insecure: v.optional(v.boolean(), false),
  authFile: v.optional(absolutePath),
});
export type PullRequestInput = v.InferInput<typeof pullRequestSchema>;

export const loadRequestSchema = v.strictObject({
  /** A docker-archive or OCI archive file, or a directory with an OCI layout. */
  path: absolutePath,
  /** Name for an image that brings none. */
  reference: v.optional(reference),
});
export type LoadRequestInput = v.InferInput<typeof loadRequestSchema>;

export const imageProgressSchema = v.object({
  message: v.optional(v.string()),
  done: v.optional(v.array(imageSummarySchema)),
  error: v.optional(errorBodySchema),
});
export type ImageProgress = v.InferOutput<typeof imageProgressSchema>;
