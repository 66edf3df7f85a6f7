import * as v from 'valibot';

/**
 * Named volumes: disks of the node that PersistentVolumeClaims get, and that outlive pods. Paths:
 *
 *   GET    /v1/volumes                       VolumeSummary[]
 *   GET    /v1/volumes/{namespace}/{name}    VolumeSummary
 *   DELETE /v1/volumes/{namespace}/{name}    VolumeSummary: removes it with its data
 */
export const volumeSummarySchema = v.object({
  namespace: v.string(),
  name: v.string(),
  sizeBytes: v.number(),
  /** Disk space that it takes on the host. */
  usedBytes: v.number(),
  createdAt: v.string(),
  /** Names of running pods, in the same namespace, that have it. */
  pods: v.array(v.string()),
});
export type VolumeSummary = v.InferOutput<typeof volumeSummarySchema>;
