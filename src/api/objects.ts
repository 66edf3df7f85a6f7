import * as v from 'valibot';

/**
 * Objects of files of clusters that the node has: what `podvm apply` made, besides pods.
 *
 *   GET /v1/objects    ObjectSummary[]
 */
export const objectKinds = [
  'Deployment',
  'StatefulSet',
  'DaemonSet',
  'ReplicaSet',
  'Job',
  'CronJob',
  'Service',
  'PersistentVolumeClaim',
] as const;
export type ObjectKind = (typeof objectKinds)[number];

export const objectSummarySchema = v.object({
  kind: v.picklist(objectKinds),
  namespace: v.string(),
  name: v.string(),
  /** What it does now, in a few words. */
  status: v.string(),
  labels: v.record(v.string(), v.string()),
  /** Names of its pods, in the same namespace: those that run, and of Jobs those that have ended. */
  pods: v.array(v.string()),
});
export type ObjectSummary = v.InferOutput<typeof objectSummarySchema>;
