import * as v from 'valibot';

/** `podvm system df --json`, and `GET /v1/disk-usage`: DiskUsage. */
export const diskUsageSchema = v.object({
  /** State directory. */
  root: v.string(),
  /** Disk space of the whole state directory, in bytes. */
  totalBytes: v.number(),
  uses: v.array(
    v.object({
      /** `part`: made by set-up; `ended`: records and logs of pods that have ended; `volumes`: those of claims; `other`: records, lists of packages and sockets. */
      kind: v.picklist(['part', 'template', 'images', 'pods', 'ended', 'volumes', 'other']),
      /** Name of the part or template. */
      name: v.optional(v.string()),
      /** Disk space, in bytes. A file with several names counts once. */
      bytes: v.number(),
      /** Whether the next set-up or start removes it, unless a pod uses it. */
      isOld: v.boolean(),
    }),
  ),
});
export type DiskUsage = Readonly<v.InferOutput<typeof diskUsageSchema>>;
